"""Edits of profiles as people write them, and their way into the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vmtui.core.errors import Conflict, OperationFailed, ProfileInvalid
from vmtui.core.resource import Kind
from vmtui.core.specs import ContainerSpec, NetworkSpec, Ready, SandboxSpec, VmSpec
from vmtui.core.units import Mount, Publish, Size
from vmtui.engine.registry import option_types
from vmtui.profile import edit, write

SHIPPED = Path(__file__).parents[2] / "profiles"
HERE = Path("/srv/p")
GUEST = (Kind.VM, "guest")


def test_a_key_changes_where_it_stands() -> None:
    text = (SHIPPED / "dev.toml").read_text()
    after = edit.set_fields(
        text, *GUEST, {("memory",): "1GiB", ("ready", "timeout"): "5m", ("cpus",): 2, ("depends_on",): None}
    )
    assert edit.difference(text, after, "dev.toml") == (
        "--- dev.toml (now)\n"
        "+++ dev.toml (then)\n"
        "@@ -28,10 +28,9 @@\n"
        " [vm.guest]\n"
        ' kernel = "deb:linux-image-cloud-amd64"\n'
        ' rootfs = "deb:busybox-static"\n'
        '-memory = "256MiB"\n'
        '+memory = "1GiB"\n'
        ' disks = ["data"]\n'
        ' networks = ["lab"]\n'
        '-depends_on = ["container/web"]\n'
        ' command = ["sh", "-c", """\n'
        " until wget -q -O /tmp/page http://web/; do sleep 0.2; done\n"
        ' echo "http://web/ says: $(cat /tmp/page)"\n'
        "@@ -39,7 +38,8 @@\n"
        ' echo "guest is ready"\n'
        " exec sleep 2147483647\n"
        ' """]\n'
        '-ready = { log = "^guest is ready", timeout = "3m" }\n'
        '+ready = { log = "^guest is ready", timeout = "5m" }\n'
        "+cpus = 2\n"
        " \n"
        " [sandbox.hello]\n"
        ' module = "hello.wat"\n'
    )


def test_a_table_as_it_is_written_anew() -> None:
    spec = ContainerSpec(
        image="oci:/srv/p/layout:tag",
        command=("sh", "-c", "echo one\necho two\n"),
        environment={"A": "1", "B C": "x" * 90},
        volumes=(Mount("/srv/p/www", "/www", read_only=True), Mount("/srv/p", "/all"), Mount("named", "/n")),
        ports=(Publish(8080, 80), Publish(53, 53, "127.0.0.1", "udp")),
        networks=("lab",),
        labels={"tier": "front"},
        memory=Size(64 << 20),
        ready=Ready(http="/"),
    )
    assert edit.add_resource('name = "x"', Kind.CONTAINER, "web", spec, (), HERE) == (
        'name = "x"\n'
        "\n"
        "[container.web]\n"
        'image = "oci:layout:tag"\n'
        'command = ["sh", "-c", """\n'
        "echo one\n"
        "echo two\n"
        '"""]\n'
        'volumes = ["./www:/www:ro", ".:/all", "named:/n"]\n'
        'networks = ["lab"]\n'
        'ports = ["8080:80", "127.0.0.1:53:53/udp"]\n'
        'memory = "64MiB"\n'
        'labels = { tier = "front" }\n'
        'ready = { http = "/" }\n'
        "\n"
        "[container.web.environment]\n"
        'A = "1"\n'
        f'"B C" = "{"x" * 90}"\n'
    )


def test_a_new_table_stands_behind_those_of_its_kind() -> None:
    text = "[vm.a]\n\n# about b\n[disk.b]\nsize = 5\n\n# the end"
    after = edit.add_resource(text, Kind.VM, "c", VmSpec(cpus=2), (), HERE)
    assert after == "[vm.a]\n\n[vm.c]\ncpus = 2\n\n# about b\n[disk.b]\nsize = 5\n\n# the end\n"
    after = edit.add_resource(text, Kind.NETWORK, "c", NetworkSpec(), (), HERE)
    assert after == f"{text}\n\n[network.c]\n"


FORMS = {
    "table": ("[vm.a]\n[vm.guest]\nmemory = 5\n", "[vm.a]\n"),
    "dotted": ("[vm]\na.cpus = 1\nguest.memory = 5\n", "[vm]\na.cpus = 1\n"),
    "from the root": ("vm.a.cpus = 1\nvm.guest.memory = 5\n", "vm.a.cpus = 1\n"),
    "inline": ("[vm]\na = {}\nguest = { memory = 5 }\n", "[vm]\na = {}\n"),
    "all inline": ("vm = { a = {}, guest = { memory = 5 } }\n", "vm = { a = {} }\n"),
    "quoted": ('["vm".a]\n["vm".\'guest\']\n"memory" = 5\n', '["vm".a]\n'),
    "apart": (
        "[vm.a]\n[disk.d]\nsize = 1\n[vm.guest]\nmemory = 5\n[network.n]\n[vm.guest.labels]\nx = 'y'\n",
        "[vm.a]\n[disk.d]\nsize = 1\n[network.n]\n",
    ),
    "no end of line": ("[vm.a]\n[vm.guest]\nmemory = 5", "[vm.a]\n"),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_forms_in_which_a_resource_can_be_written(form: str) -> None:
    text, without = FORMS[form]
    after = edit.set_fields(text, *GUEST, {("memory",): 7, ("ready", "tcp"): 22, ("labels", "x"): "z"})
    assert "7" in after
    assert "5" not in after
    assert edit.remove_resource(after, *GUEST) == without
    assert edit.remove_resource(text, *GUEST) == without


def test_the_comments_between_the_items_of_a_list_stay() -> None:
    text = '[vm.guest]\nports = [\n  "80:80", # web\n  # ssh\n  "22:22",\n  "23:23", # old\n]\n'
    after = edit.set_fields(text, *GUEST, {("ports",): ["80:80", "443:443", "22:22"]})
    assert after == '[vm.guest]\nports = [\n  "80:80", # web\n  # ssh\n  "443:443",\n  "22:22",\n]\n'


def test_a_removed_table_takes_its_comment_along_and_no_other() -> None:
    text = (
        "# the file\n[disk.a]\nsize = 1\n\n# apart\n\n# about guest\n[vm.guest]\ncpus = 2 # two\n\n"
        "# about b\n[disk.b]\nsize = 1\n"
    )
    after = edit.remove_resource(text, *GUEST)
    assert after == "# the file\n[disk.a]\nsize = 1\n\n# apart\n\n# about b\n[disk.b]\nsize = 1\n"
    assert edit.remove_resource(after, Kind.DISK, "a") == "# the file\n\n# apart\n\n# about b\n[disk.b]\nsize = 1\n"


def test_line_ends_of_a_file_stay() -> None:
    text = "[vm.guest]\r\ncpus = 2\r\n"
    after = edit.set_fields(text, *GUEST, {("command",): ["a\nb"]})
    after = edit.add_resource(after, Kind.VM, "b", VmSpec(kernel="/k"), (), HERE)
    assert after == '[vm.guest]\r\ncpus = 2\r\ncommand = ["a\\nb"]\r\n\r\n[vm.b]\r\nkernel = "/k"\r\n'


def test_what_is_there_already_is_not_added() -> None:
    with pytest.raises(ProfileInvalid, match=r"vm.guest: it is in the profile already"):
        edit.add_resource("[vm.guest]\n", *GUEST, VmSpec(), (), HERE)


def test_a_form_that_cannot_be_changed_is_refused() -> None:
    with pytest.raises(ProfileInvalid, match="cannot be changed from here"):
        edit.add_resource("vm = { a = {} }\n", *GUEST, VmSpec(), (), HERE)


# Into the file


def save(path: Path, change: Any) -> None:
    opened = write.open_(path)
    write.save(opened, change(opened.text or ""), option_types)


def add_guest(text: str) -> str:
    return edit.add_resource(text, *GUEST, VmSpec(kernel="/k"), (), HERE)


def test_a_new_file_is_made(tmp_path: Path) -> None:
    save(tmp_path / "new.toml", add_guest)
    assert (tmp_path / "new.toml").read_text() == '[vm.guest]\nkernel = "/k"\n'


def test_a_file_keeps_its_mode_and_a_link_its_target(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.write_text("[network.n]\n")
    real.chmod(0o640)
    link.symlink_to(real)
    save(link, add_guest)
    assert link.is_symlink()
    assert "guest" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def test_an_invalid_result_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[network.n]\n")
    with pytest.raises(ProfileInvalid, match=r"x.toml:5: container.web.networks\[0\]: there is no network 'm'"):
        save(
            path,
            lambda text: edit.add_resource(
                text, Kind.CONTAINER, "web", ContainerSpec(image="deb:x", networks=("m",)), (), HERE
            ),
        )
    assert path.read_text() == "[network.n]\n"
    assert os.listdir(tmp_path) == ["x.toml"]


@pytest.mark.parametrize("what", ["changed", "gone", "came", "replaced"])
def test_a_file_that_is_another_by_now_is_not_overwritten(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.toml"
    if what != "came":
        path.write_text("[network.n]\n")
    opened = write.open_(path)
    path.unlink(missing_ok=True)
    if what == "replaced":
        path.mkdir()
    elif what != "gone":
        path.write_text("[network.m]\n")
    with pytest.raises(Conflict, match=r"x.toml (has changed|is gone) since it was read"):
        write.save(opened, "[vm.guest]\nkernel = '/k'\n", option_types)
    assert not path.is_file() or path.read_text() == "[network.m]\n"


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="cannot be written: no such file or directory"):
        save(tmp_path / "none" / "x.toml", add_guest)


def test_a_sandbox_beside_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    spec = SandboxSpec(module=str(tmp_path / "a.wat"))
    save(path, lambda text: edit.add_resource(text, Kind.SANDBOX, "s", spec, (), tmp_path))
    assert 'module = "a.wat"' in path.read_text()
