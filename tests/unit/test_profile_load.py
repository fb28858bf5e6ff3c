"""Profiles: what they say, and what each fault of them is told as."""

from __future__ import annotations

import os
import string
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmtui.core.errors import ProfileInvalid
from vmtui.core.resource import Kind
from vmtui.core.specs import SPECS, ContainerSpec, DiskSpec, SandboxSpec, VmSpec
from vmtui.core.units import Duration, Size
from vmtui.profile.document import MAX_FILE_BYTES
from vmtui.profile.load import MAX_RESOURCES, load, name_of
from vmtui.profile.schema import Profile


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A backend's own sub-table."""

    machine: str = "q35"
    delay: Duration | None = None


def options(kind: Kind) -> Mapping[str, type[msgspec.Struct] | None]:
    return {"one": Options, "two": None}


def read(folder: Path, text: str, name: str = "dev.toml") -> Profile:
    path = folder / name
    path.write_text(text)
    return load(path, options)


def fault(folder: Path, text: str, name: str = "dev.toml") -> tuple[str, str, str, str]:
    """Line, key, message, hint."""
    with pytest.raises(ProfileInvalid) as caught:
        read(folder, text, name)
    error = caught.value
    assert error.where.startswith(str(folder / name))
    return error.where.removeprefix(str(folder / name)).removeprefix(":"), error.key, error.message, error.hint


def loaded(path: Path) -> Profile | ProfileInvalid:
    try:
        return load(path, options)
    except ProfileInvalid as error:
        return error


def test_a_whole_profile(tmp_path: Path) -> None:
    profile = read(
        tmp_path,
        """
        [network.lab]
        subnet = "10.88.0.0/24"
        [disk.data]
        size = "1GiB"
        [vm.guest]
        memory = "512MiB"
        kernel = "deb:linux-image-cloud-amd64"
        disks = ["data"]
        networks = ["lab"]
        stop_grace_period = "1m30s"
        one = { machine = "microvm", delay = "2s" }
        [container.web]
        image = "docker://docker.io/library/nginx"
        networks = ["lab"]
        ports = ["8080:80", "127.0.0.1:8443:443/tcp"]
        ready.http = "/"
        [container.web.one]
        [sandbox.hello]
        module = "hello.wat"
        """,
    )
    assert profile.name == "dev"
    assert [item.ref.short for item in profile.resources] == [
        "network/lab",
        "disk/data",
        "vm/guest",
        "container/web",
        "sandbox/hello",
    ]
    guest = profile.resources[2]
    assert isinstance(guest.spec, VmSpec)
    assert guest.spec.memory == Size(512 << 20)
    assert guest.options == (("one", Options("microvm", Duration(2))),)
    assert guest.where == f"{tmp_path / 'dev.toml'}:6"
    assert profile.resources[3].options == (("one", Options()),)


def test_the_name_is_that_of_the_file_unless_given(tmp_path: Path) -> None:
    assert read(tmp_path, 'name = "other"').name == "other"
    assert name_of(tmp_path / "dev.toml") == "other"
    assert read(tmp_path, "").name == "dev"
    assert fault(tmp_path, "", "My Profile.toml")[3] == 'add name = "dev"'
    assert fault(tmp_path, '\nname = "A"')[:2] == ("2", "name")
    assert fault(tmp_path, "name = 3")[:2] == ("1", "name")


def test_paths_are_resolved_against_the_folder_of_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    profile = read(
        tmp_path,
        """
        [disk.d]
        source = "../images/d.vmdk"
        source_format = "vmdk"
        [vm.a]
        kernel = "vmlinuz"
        initrd = "~/initrd.img"
        [vm.b]
        kernel = "deb:linux-image-cloud-amd64"
        rootfs = "oci:./layout:v1"
        [container.a]
        image = "oci-archive:../a.tar"
        volumes = ["./www:/srv:ro", "named:/data", "/abs/../x:/x", "..:/up", "~/y:/y"]
        [container.b]
        image = "docker://quay.io/x/y:1"
        [container.c]
        image = "dir:~/images/c"
        [sandbox.s]
        module = "sub/../m.wasm"
        volumes = ["./in:/in", "out/x:/out:rw"]
        """,
    )
    spec = {item.ref.short: item.spec for item in profile.resources}
    disk, a, b, c = spec["disk/d"], spec["vm/a"], spec["vm/b"], spec["container/a"]
    assert isinstance(disk, DiskSpec)
    assert disk.source == str(tmp_path.parent / "images/d.vmdk")
    assert isinstance(a, VmSpec)
    assert isinstance(b, VmSpec)
    assert (a.kernel, a.initrd) == (str(tmp_path / "vmlinuz"), "/home/someone/initrd.img")
    assert (b.kernel, b.rootfs) == ("deb:linux-image-cloud-amd64", f"oci:{tmp_path}/layout:v1")
    assert isinstance(c, ContainerSpec)
    assert c.image == f"oci-archive:{tmp_path.parent}/a.tar"
    assert [str(mount) for mount in c.volumes] == [
        f"{tmp_path}/www:/srv:ro",
        "named:/data:rw",
        "/x:/x:rw",
        f"{tmp_path.parent}:/up:rw",
        "/home/someone/y:/y:rw",
    ]
    images = [item.image for item in spec.values() if isinstance(item, ContainerSpec)]
    assert images[1:] == ["docker://quay.io/x/y:1", "dir:/home/someone/images/c"]
    sandbox = spec["sandbox/s"]
    assert isinstance(sandbox, SandboxSpec)
    assert sandbox.module == str(tmp_path / "m.wasm")
    assert [str(mount) for mount in sandbox.volumes] == [f"{tmp_path}/in:/in:ro", f"{tmp_path}/out/x:/out:rw"]


def test_a_relative_profile_path_resolves_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path, '[vm.a]\nkernel = "k"')
    monkeypatch.chdir(tmp_path)
    profile = load(Path("dev.toml"), options)
    assert profile.path == tmp_path / "dev.toml"
    assert isinstance(profile.resources[0].spec, VmSpec)
    assert profile.resources[0].spec.kernel == str(tmp_path / "k")
    assert profile.resources[0].where == "dev.toml:1"


def test_a_folder_with_a_colon_cannot_hold_mounts(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    line, key, message, _ = fault(folder, '[container.a]\nimage = "x"\nvolumes = ["./c:/c"]')
    assert (line, key) == ("3", "container.a.volumes")
    assert "colon" in message


@pytest.mark.parametrize(
    ("text", "line", "key", "message", "hint"),
    [
        ('[vm.a]\n\nkernl = "x"', "3", "vm.a.kernl", "unknown key", "did you mean 'kernel'?"),
        ('[disk.a]\nsize = 1\nrestart = "no"', "3", "disk.a.restart", "unknown key", "known here: "),
        ("[vms.a]", "1", "vms", "unknown kind", "did you mean 'vm'?"),
        ("[vm.a]\nready = { htp = 1 }", "2", "vm.a.ready.htp", "unknown key", "did you mean 'http'?"),
        ("[vm.a]\n[vm.a.one]\nmachin = 1", "3", "vm.a.one.machin", "unknown key", "did you mean 'machine'?"),
        ("[vm.a]\n[vm.a.one]\nmachine = 1", "3", "vm.a.one.machine", "expected a text, not a whole number", ""),
        ("[vm.a]\n[vm.a.two]", "2", "vm.a.two", "backend two has no options of its own", ""),
        ("[vm.a]\none = 1", "2", "vm.a.one", "expected a table, not a whole number", ""),
        ('[vm.a]\ncpus = "x"', "2", "vm.a.cpus", "expected a whole number, not a text", ""),
        ("[vm.a]\ncpus = 0", "2", "vm.a.cpus", "expected `int` >= 1", ""),
        ('[vm.a]\nmemory = "1XB"', "2", "vm.a.memory", "is not a size", ""),
        ("[vm.a]\nmemory = 9223372036854775808", "2", "vm.a.memory", "more than 64 bits", ""),
        ('[vm.a]\nbackend = "ones"', "2", "vm.a.backend", "kind vm has no backend 'ones'", "did you mean 'one'?"),
        ("[vm.a]\nbackend = 1", "2", "vm.a.backend", "expected a text", ""),
        ("[container.a]", "1", "container.a", "required key 'image' is missing", "add image = …"),
        ('[vm.a]\ndisks = ["x",\n"y"]\n[disk.x]\nsize = 1', "3", "vm.a.disks[1]", "no disk 'y'", "add [disk.y]"),
        (
            '[vm.a]\nnetworks = ["lba"]\n[network.lab]',
            "2",
            "vm.a.networks[0]",
            "no network 'lba'",
            "did you mean 'lab'?",
        ),
        ('[vm.a]\ndepends_on = ["b"]', "2", "vm.a.depends_on[0]", "'b' is not KIND/NAME", ""),
        ('[vm.a]\ndepends_on = ["vm/b"]', "2", "vm.a.depends_on[0]", "no vm 'b'", "add [vm.b]"),
        (
            '[vm.a]\ndepends_on = ["vm/b"]\n[vm.b]\ndepends_on = ["vm/a"]',
            "4",
            "vm.b.depends_on[0]",
            "a cycle: vm/a needs vm/b needs vm/a",
            "remove one of these references: lines 2, 4",
        ),
        ("[vm.a]\n[vm.a]", "2", "", "not TOML: cannot declare vm.a twice", "each table and key may be written once"),
        ("[vm.a]\ncpus = 1\ncpus = 2", "3", "", "not TOML: cannot overwrite a value", "each table and key"),
        ("\n\n= 3", "3", "", "not TOML: ", ""),
        ("vm = 3", "1", "vm", "expected tables, as in [vm.name]", ""),
        ("[vm]\na = 3", "2", "vm.a", "expected a table, as in [vm.a]", ""),
        ("[vm.Guest]", "1", "vm.Guest", "a name is 1 to 40", ""),
        ("[vm.a]\nlabels = { a = 1 }", "2", "vm.a.labels.a", "expected a text, not a whole number", ""),
        ('[vm.a]\nlabels = { a = "\\u0000" }', "2", "vm.a.labels.a", "NUL", ""),
        ('[container.a]\nimage = "x"\ncpus = inf', "3", "container.a.cpus", "inf is not a usable number", ""),
        ("[vm.a]\nready = {}", "2", "vm.a.ready", "exactly one condition is needed, none is given", "use one of"),
        ('[vm.a]\nready = { tcp = 1, log = "x" }', "2", "vm.a.ready", "log and tcp are given", "use one of"),
        ('[vm.a]\nready = { log = "[" }', "2", "vm.a.ready.log", "not a regular expression", ""),
        ('[vm.a]\nready = { http = ":99999/" }', "2", "vm.a.ready.http", "a port is between 1 and 65535", ""),
        (
            '[sandbox.a]\nmodule = "m"\nready.exec = ["x"]',
            "3",
            "sandbox.a.ready.exec",
            "cannot be asked that",
            "log, exit_code",
        ),
        ("[disk.a]\nsize = 1\nready.tcp = 1", "3", "disk.a.ready", "ready as soon as it is there", "remove ready"),
        (
            '[container.a]\nimage = "x"\nrestart = "always"\nready.exit_code = 0',
            "3",
            "container.a.restart",
            "a job that must end cannot be restarted always",
            "on-failure",
        ),
        ("[disk.a]", "1", "disk.a", "a disk needs a size or a source", 'add size = "10GiB"'),
        ('[disk.a]\nsource = "x"', "2", "disk.a.source", "source_format is missing", "raw"),
        ('[disk.a]\nsource = "x"\nsource_format = "iso"', "3", "disk.a.source_format", "'iso' is not known", "raw"),
        ('[network.a]\nsubnet = "10.0.0.1/24"', "2", "network.a.subnet", "host bits set", ""),
        ('[network.a]\nsubnet = "fd00::/64"', "2", "network.a.subnet", "not an IPv4 network", ""),
        ('[network.a]\nsubnet = "10.0.0.0/31"', "2", "network.a.subnet", "/31 is not usable", ""),
        (
            '[network.a]\nsubnet = "10.0.0.0/24"\ngateway = "10.0.1.1"',
            "3",
            "network.a.gateway",
            "not a host address",
            "10.0.0.1",
        ),
        ('[network.a]\ngateway = "10.0.1.1"', "2", "network.a.gateway", "a gateway needs a subnet", "add subnet"),
        (
            '[network.a]\nsubnet = "10.0.0.0/16"\n[network.b]\nsubnet = "10.0.9.0/24"',
            "4",
            "network.b.subnet",
            "10.0.9.0/24 overlaps 10.0.0.0/16 of network/a",
            "",
        ),
        ('[container.a]\nimage = "x"\nports = ["1:1"]', "3", "container.a.ports", "without a network", "add networks"),
        ('[vm.a]\nports = ["81"]', "2", "vm.a.ports[0]", "is not a port mapping", ""),
        (
            '[vm.a]\nports = ["80:1"]\n[vm.b]\nports = ["127.0.0.1:80:2"]',
            "4",
            "vm.b.ports[0]",
            "vm/a publishes host port 80/tcp already",
            "",
        ),
        (
            '[vm.a]\ndisks = ["d"]\n[vm.b]\ndisks = ["d"]\n[disk.d]\nsize = 1',
            "4",
            "vm.b.disks[0]",
            "disk d is written by vm/a already",
            "give each VM a disk of its own",
        ),
        ('[vm.a]\ninitrd = "x"', "2", "vm.a.initrd", "initrd needs kernel", "add kernel"),
        ('[vm.a]\nkernel = "k"\ninitrd = "x"\nrootfs = "y"', "3", "vm.a.initrd", "only one of them", ""),
        ('[vm.a]\ncommand = ["x"]', "2", "vm.a.command", "command needs rootfs", ""),
        (
            '[container.a]\nimage = "x"\nvolumes = ["a:/b", "c:/b"]',
            "3",
            "container.a.volumes[1]",
            "/b is mounted twice",
            "",
        ),
        (
            '[container.a]\nimage = "x"\nenvironment = { "A=B" = "c" }',
            "3",
            "container.a.environment.'A=B'",
            "not the name",
            "",
        ),
    ],
)
def test_each_fault_names_its_line_key_and_remedy(
    tmp_path: Path, text: str, line: str, key: str, message: str, hint: str
) -> None:
    found = fault(tmp_path, text)
    assert found[:2] == (line, key)
    assert message in found[2]
    assert hint in found[3]
    if not hint.startswith("did you mean"):
        assert not found[3] or "did you mean" not in found[3]


def test_ports_of_different_addresses_and_protocols_do_not_collide(tmp_path: Path) -> None:
    read(tmp_path, '[vm.a]\nports = ["127.0.0.1:80:1", "127.0.0.2:80:1", "127.0.0.1:80:1/udp"]')


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def refused(path: Path) -> ProfileInvalid:
        with pytest.raises(ProfileInvalid) as caught:
            load(path, options)
        return caught.value

    missing = refused(tmp_path / "dev.toml")
    assert missing.message == "cannot read it: no such file or directory"
    assert missing.hint.endswith("vmtui down dev")
    assert refused(tmp_path).message in ("not a regular file", "cannot read it: is a directory")
    os.mkfifo(tmp_path / "fifo.toml")
    assert refused(tmp_path / "fifo.toml").message == "not a regular file"
    assert "null" in refused(tmp_path / "a\0b").message
    (tmp_path / "latin.toml").write_bytes(b"# fine\n# \xe4\n")
    assert refused(tmp_path / "latin.toml").where.endswith("latin.toml:2")
    (tmp_path / "big.toml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert refused(tmp_path / "big.toml").message == "larger than 1 MiB"
    (tmp_path / "deep.toml").write_text("x = " + "[" * 100_000)
    assert refused(tmp_path / "deep.toml").message == "it is nested too deeply"
    (tmp_path / "long.toml").write_text("x = " + "9" * 10_000)
    assert "digits" in refused(tmp_path / "long.toml").message


def test_long_texts_do_not_fill_the_error(tmp_path: Path) -> None:
    for text in (f'[vm.a]\nmemory = "{"x" * 100_000}"', f"[vm.a]\n{'x' * 100_000} = 1", f"[{'x' * 100_000}]"):
        with pytest.raises(ProfileInvalid) as caught:
            read(tmp_path, text)
        assert len(str(caught.value)) < 1000


def test_ten_thousand_resources_load_in_a_second(tmp_path: Path) -> None:
    path = tmp_path / "many.toml"
    path.write_text(
        "".join(f'[container.c{n}]\nimage = "deb:x"\nnetworks = ["n"]\n' for n in range(9_999)) + "[network.n]"
    )
    began = time.process_time()
    assert len(load(path, options).resources) == MAX_RESOURCES
    assert time.process_time() - began < 5  # about 0.4 s; five times the limit for a busy machine
    with path.open("a") as file:
        file.write("\n[network.one-more]")
    with pytest.raises(ProfileInvalid, match="10001 resources"):
        load(path, options)


scalars = st.one_of(
    st.text(max_size=6).map(lambda text: '"' + text.replace("\\", "").replace('"', "").replace("\n", "") + '"'),
    st.sampled_from(
        ['"1GiB"', '"30s"', '"80:80"', '"./a:/b"', '"a"', '"vm/a"', '"oci:./x"', "true", "1", "-1", "0.5", "nan"]
    ),
    st.sampled_from(
        ["1979-05-27", "07:32:00", "[]", "{}", "99999999999999999999", '["a"]', '[["a"]]', '{ log = "." }']
    ),
)
keys = st.sampled_from(
    sorted({name for spec in SPECS.values() for name in spec.__struct_fields__} | {"x", "one", "two"})
)
headers = st.builds(
    "[{}.{}]".format, st.sampled_from([*Kind, "x"]), st.text(string.ascii_lowercase[:3] + "-", min_size=1, max_size=2)
)
lines = st.one_of(headers, st.builds("{} = {}".format, keys, scalars), st.text(max_size=10))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(lines, max_size=12).map("\n".join))
def test_random_profiles_load_or_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dev.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    profile = loaded(tmp_path / "dev.toml")
    if isinstance(profile, ProfileInvalid):
        assert profile.where
        assert profile.message
        return
    for item in profile.resources:
        assert SPECS[item.ref.kind] is type(item.spec)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "dev.toml").write_bytes(data)
    loaded(tmp_path / "dev.toml")
