"""What is wrong with a profile and with what it names: each has its code and one error, and leaves nothing behind."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import bad_images, wat
from tests.support.bad_images import file
from tests.support.refusals import Place, Refusal, assert_as_before, assert_harmless, check, traces

pytestmark = pytest.mark.real

CONTAINER = '[container.one]\nimage = "{image}"\nstop_grace_period = "0s"\n'
BAD_IMAGE = '[container.one]\nimage = "oci:{dir}/image"\nstop_grace_period = "0s"\n'
SANDBOX = '[sandbox.one]\nmodule = "module.wat"\n'
DISK = '[disk.one]\nsource = "source"\nsource_format = "qcow2"\n'
VM = '[vm.one]\nkernel = "vmlinuz"\n'
NETWORK = '[network.net]\nsubnet = "{net}.0/24"\n'
SLEEPS = 'command = ["sleep", "99"]\n'
ENDS = 'ready = { exit_code = 0, timeout = "20s" }\n'
KEPT = "^vmtui --profile .*bad.toml --on-failure keep; vmtui logs bad/"


def at(line: int, key: str = "") -> str:
    """The place that an error names."""
    return f"^{{dir}}/bad.toml:{line}: {key}"


def listener(place: Place) -> closing[socket.socket]:
    """A process that is not vmtui has the port: this one."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", int(place.words["{port}"])))
    taken.listen()
    return closing(taken)


def host_subnet(place: Place) -> None:
    """The network of the first address that this host has besides loopback."""
    shown = subprocess.run(["ip", "-j", "-4", "addr"], check=True, capture_output=True)
    found = [item for link in json.loads(shown.stdout) if link["ifname"] != "lo" for item in link["addr_info"]]
    address = ipaddress.IPv4Interface(f"{found[0]['local']}/24")
    place.words["{host}"] = str(address.network)


def undone(name: str, profile: str, code: int, error: str, hint: str, **more: Any) -> Refusal:
    """A refusal that comes when something has been made already."""
    return Refusal(name, profile, code, error, hint, result="rolled-back", **more)


# What the profile says is found before the host is asked.
PROFILES = [
    Refusal("unknown kind", "[contianer.one]\n", 65, "contianer: unknown kind", "did you mean 'container'", at(1)),
    Refusal("unknown key", CONTAINER + "comand = []\n", 65, "container.one.comand: unknown key", "'command'", at(4)),
    Refusal("unknown key of ready", CONTAINER + 'ready = { htpp = "/" }\n', 65, "ready.htpp: unknown", "'http'", at(4)),
    Refusal(
        "unknown key of a backend", VM + "[vm.one.qemu]\nacel = 'kvm'\n", 65, "vm.one.qemu.acel: unknown key", "accel",
        at(4),
    ),
    Refusal("wrong type", VM + 'cpus = "two"\n', 65, "vm.one.cpus: expected a whole number, not a text", "", at(3)),
    Refusal("text for a list", CONTAINER + 'ports = "80:80"\n', 65, "ports: expected a list, not a text", "", at(4)),
    Refusal("number in a table of texts", CONTAINER + "environment = { A = 1 }\n", 65, "expected a text", "", at(4)),
    Refusal("required key", "[container.one]\n", 65, "'image' is missing", "add image", at(1)),
    Refusal("unknown backend", CONTAINER + 'backend = "docker"\n', 65, "no backend 'docker'", "oci", at(4)),
    Refusal("duplicate name", CONTAINER * 2, 65, "container.one twice", "once", at(4)),
    Refusal("duplicate key", CONTAINER + 'image = "x"\n', 65, "overwrite", "once", at(4)),
    Refusal("not TOML", "[container.one\n", 65, "not TOML", "", at(1)),
    Refusal(
        "cycle",
        '[sandbox.one]\nmodule = "m"\ndepends_on = ["sandbox/two"]\n'
        '[sandbox.two]\nmodule = "m"\ndepends_on = ["sandbox/one"]\n',
        65, "a cycle: sandbox/one needs sandbox/two needs sandbox/one", "lines 3, 6", at(6),
    ),
    Refusal("missing network", CONTAINER + 'networks = ["lab"]\n', 65, "no network 'lab'", r"\[network.lab\]", at(4)),
    Refusal("missing disk", VM + 'disks = ["data"]\n', 65, "no disk 'data'", r"add \[disk.data\]", at(3)),
    Refusal(
        "missing dependency", CONTAINER + 'depends_on = ["vm/gone"]\n', 65, "there is no vm 'gone'", r"\[vm.gone\]",
        at(4),
    ),
    Refusal("bad size", CONTAINER + 'memory = "12 parsecs"\n', 65, "'12 parsecs' is not a size", "", at(4)),
    Refusal("negative size", CONTAINER + 'memory = "-1MiB"\n', 65, "'-1MiB' is not a size", "", at(4)),
    Refusal("endless size", "[disk.one]\nsize = '99999999999TiB'\n", 65, "is out of range", "", at(2)),
    Refusal("too large a disk", "[disk.one]\nsize = '9999TiB'\n", 65, "disk.one: a qcow2 disk has", "size =", at(1)),
    Refusal("no size", "[disk.one]\n", 65, "a disk needs a size or a source", "add size", at(1)),
    Refusal("endless duration", SANDBOX + 'timeout = "99999d"\n', 65, "is out of range", "", at(3)),
    Refusal("bad timeout", SANDBOX + 'timeout = "soon"\n', 65, "'soon' is not a duration", "", at(3)),
    Refusal("half a port", NETWORK + CONTAINER + 'ports = ["80"]\n', 65, "'80' is not a port mapping", "", at(6)),
    Refusal("no such port", NETWORK + CONTAINER + 'ports = ["80:99999"]\n', 65, "between 1 and 65535", "", at(6)),
    Refusal("no such protocol", NETWORK + CONTAINER + 'ports = ["80:80/icmp"]\n', 65, "not a port map", "", at(6)),
    Refusal("port without network", CONTAINER + 'ports = ["80:80"]\n', 65, "without a network", "networks", at(4)),
    Refusal("bad subnet", "[network.net]\nsubnet = '10.0.0.1/24'\n", 65, "not an IPv4 network", "10.88", at(2)),
    Refusal("foreign gateway", NETWORK + "gateway = '1.2.3.4'\n", 65, "is not a host address of", "use", at(3)),
    Refusal("no way to write a ready", CONTAINER + "ready = {}\n", 65, "exactly one condition", "use one", at(4)),
    Refusal("bad expression", CONTAINER + "ready = { log = '(' }\n", 65, "not a regular expression", "", at(4)),
    Refusal(
        "initrd and rootfs", VM + 'initrd = "i"\nrootfs = "{image}"\n', 65, "vm.one.initrd: .*only one of them",
        "remove", at(3),
    ),
    Refusal("two writers", VM + 'disks = ["d", "d"]\n[disk.d]\nsize = "1MiB"\n', 65, "disk d is written by", "", at(3)),
    Refusal("name too long", f'[container.{"a" * 41}]\nimage = "x"\n', 65, "a name is 1 to 40", "", at(1)),
    Refusal("upper case", '[container.Web]\nimage = "x"\n', 65, "a name is 1 to 40", "", at(1)),
    Refusal("name that climbs", '[container."../../etc"]\nimage = "x"\n', 65, "a name is 1 to 40", "", at(1)),
    Refusal("name with a slash", '[container."a/b"]\nimage = "x"\n', 65, "a name is 1 to 40", "", at(1)),
    Refusal("name of a terminal", '[container."\\u001b[2J"]\nimage = "x"\n', 65, "a name is 1 to 40", "", at(1)),
    Refusal("profile's name", 'name = "../x"\n', 65, "name: a name is 1 to 40", "", at(1)),
    Refusal("endless name", f'[container."{"a" * 1_000_000}"]\nimage = "x"\n', 65, "a name is 1 to 40", "", at(1)),
    Refusal("deep arrays", "x = " + "[" * 50_000 + "]" * 50_000, 65, "nested too deeply", "", "^{dir}/bad.toml: "),
    Refusal("deep keys", "[" + "a." * 100_000 + "a]\n", 65, "nested too deeply", "KIND.NAME", at(1)),
    Refusal("huge number", CONTAINER + f"memory = {'9' * 10_000}\n", 65, "too many digits", "", "^{dir}/bad.toml: "),
    Refusal("number above 64 bits", CONTAINER + f"memory = {'9' * 30}\n", 65, "more than 64 bits", "", at(4)),
    Refusal("huge", b"#" * (1 << 20) + b"#", 65, "larger than 1 MiB", "", "^{dir}/bad.toml: "),
    Refusal("too many", "".join(f"[disk.d{n}]\n" for n in range(10_001)), 65, "size|limit is 10000", "", at(1)),
    Refusal("not UTF-8", b'name = "\xff"\n', 65, "not UTF-8", "", at(1)),
    Refusal("NUL byte", b'name = "\0"\n', 65, "not TOML", "", at(1)),
]  # fmt: skip

# The files that it names are looked at before anything changes.
FILES = [
    Refusal("no module", SANDBOX, 65, "cannot read {dir}/module.wat", "ls -l", at(1, "sandbox.one: ")),
    Refusal(
        "not a module",
        SANDBOX,
        65,
        "is not a WebAssembly module",
        "^file ",
        at(1),
        prepare=file("module.wat", b"\x7fELF"),
    ),
    Refusal(
        "module without end",
        SANDBOX,
        65,
        "module.wat is not a file",
        "ls -l",
        at(1),
        prepare=lambda place: os.mkfifo(place.folder / "module.wat"),
    ),
    Refusal(
        "no volume",
        SANDBOX + 'volumes = ["./gone:/x"]\n',
        65,
        "{dir}/gone is not a folder",
        "mkdir",
        at(1),
        prepare=file("module.wat", wat.exits(0)),
    ),
    Refusal("no kernel", VM, 65, "cannot read kernel {dir}/vmlinuz", "ls -l", at(1, "vm.one: ")),
    Refusal("not a kernel", VM, 65, "is not a kernel", "set kernel", at(1), prepare=file("vmlinuz", bytes(70_000))),
    Refusal(
        "kernel without end",
        VM,
        65,
        "not a regular file",
        "ls -l",
        at(1),
        prepare=lambda place: os.mkfifo(place.folder / "vmlinuz"),
    ),
    Refusal("no package", '[vm.one]\nkernel = "deb:../x"\n', 65, "names no Debian package", "apt-cache", at(1)),
    Refusal("nothing to boot", "[vm.one]\n", 65, "neither kernel nor disks", "set kernel", at(1)),
    Refusal("no initrd", VM + 'initrd = "gone"\n', 65, "cannot read", "ls -l", at(1)),
    Refusal("no source", DISK, 65, "{dir}/source: no such file", "ls -l", at(1, "disk.one: ")),
    Refusal("not a disk", DISK, 65, "not a qcow2 image", "qemu-img info", at(1), prepare=file("source", bytes(70_000))),
    Refusal(
        "disk cut off",
        DISK,
        65,
        "{dir}/source: ",
        "",
        at(1),
        prepare=file("source", b"QFI\xfb\0\0\0\3"),
    ),
    Refusal(
        "backing file",
        DISK,
        65,
        "refers to a backing file",
        "qemu-img convert",
        at(1),
        prepare=bad_images.qemu_img("create", "-f", "qcow2", "-b", "{dir}/base", "-F", "raw", "{dir}/source"),
    ),
    Refusal(
        "external data",
        DISK,
        65,
        "data file",
        "",
        at(1),
        prepare=bad_images.qemu_img(
            "create", "-f", "qcow2", "-o", "data_file={dir}/raw,data_file_raw=on", "{dir}/source", "1M"
        ),
    ),
    Refusal(
        "silent shrinking",
        DISK + 'size = "1MiB"\n',
        65,
        "what is beyond would be lost",
        "shrink = true",
        at(1),
        prepare=bad_images.qemu_img("create", "-f", "qcow2", "{dir}/source", "8M"),
    ),
    Refusal("no image", BAD_IMAGE, 65, "no such file or folder: {dir}/image", "ls -l", at(1, "container.one: ")),
    Refusal("not a folder", BAD_IMAGE, 65, "is not a folder", "ls -l", at(1), prepare=file("image", b"")),
    Refusal(
        "not a reference", '[container.one]\nimage = "Not A Name"\n', 65, "is not an image reference", "use NAME", at(1)
    ),
    Refusal("no bind source", CONTAINER + 'volumes = ["./gone:/x"]\n', 65, "{dir}/gone is not there", "mkdir", at(1)),
    Refusal("bad volume", CONTAINER + 'volumes = ["DATA:/x"]\n', 65, "volume 'DATA'", "volumes =", at(1)),
    Refusal("no capability", CONTAINER + 'cap_add = ["CAP_FLY"]\n', 65, "no capability 'CAP_FLY'", "man", at(1)),
    Refusal("no signal", CONTAINER + 'stop_signal = "SIGWHAT"\n', 65, "'SIGWHAT' is not a signal", "kill -l", at(1)),
    Refusal("no memory", CONTAINER + 'memory = "1KiB"\n', 65, "too little", "memory = ", at(1)),
    Refusal("working folder", CONTAINER + 'working_dir = "x"\n', 65, "not an absolute path", "working_dir", at(1)),
    Refusal("bad tmpfs", CONTAINER + 'tmpfs = ["x"]\n', 65, "not an absolute path", "tmpfs", at(1)),
    Refusal("bad domain", NETWORK + 'domain = "Not A Domain"\n', 65, "is not a host name", "domain = ", at(1)),
    Refusal("loopback", "[network.net]\nsubnet = '127.1.0.0/24'\n", 65, "reserved for other uses", "10.88", at(1)),
    Refusal(
        "two that overlap",
        NETWORK + '[network.two]\nsubnet = "{net}.128/25"\n',
        65,
        "two.subnet: .* overlaps {net}.0/24",
        "",
        at(4),
    ),
]

# Found while it is made, and taken back.
MADE = [
    undone(
        "module syntax",
        SANDBOX,
        71,
        "^bad/sandbox/one: {dir}/module.wat:2:6: ",
        "correct line 2",
        details="\\^",
        prepare=file("module.wat", "(module\n    (fnord))"),
    ),
    undone(
        "module cut off",
        SANDBOX,
        71,
        "^bad/sandbox/one: {dir}/module.wat: ",
        "^file ",
        prepare=file("module.wat", b"\0asm\1\0\0\0\1\x99"),
    ),
    undone(
        "no entrypoint",
        SANDBOX,
        71,
        "exports no function '_start'",
        "set entrypoint",
        prepare=file("module.wat", "(module)"),
    ),
    undone(
        "too large at once",
        SANDBOX + 'memory = "64KiB"\n',
        71,
        "needs 262144 bytes",
        "set memory",
        prepare=file("module.wat", wat.exits(0)),
    ),
    undone(
        "loops without fuel",
        SANDBOX + "fuel = 100_000\n" + ENDS,
        71,
        "out of fuel after 100000 units",
        KEPT,
        prepare=file("module.wat", wat.SPIN),
    ),
    undone(
        "loops for ever",
        SANDBOX + 'timeout = "200ms"\n' + ENDS,
        71,
        "timed out after 0.2s",
        KEPT,
        prepare=file("module.wat", wat.SPIN),
    ),
    undone(
        "allocates",
        SANDBOX + 'memory = "1MiB"\n' + ENDS,
        71,
        "unreachable",
        KEPT,
        details="refused",
        prepare=file(
            "module.wat",
            wat.speaks(
                "refused", then="(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))"
            ),
        ),
    ),
    undone(
        "traps",
        SANDBOX + ENDS,
        71,
        "ended with code 134 .*: integer division by zero",
        KEPT,
        prepare=file("module.wat", wat.module("(drop (i32.div_s (i32.const 1) (i32.const 0)))")),
    ),
    undone(
        "reads beyond",
        SANDBOX + ENDS,
        71,
        "memory access out of bounds",
        KEPT,
        prepare=file("module.wat", wat.module("(drop (i32.load (i32.const 9999999)))")),
    ),
    undone(
        "wrong exit code",
        SANDBOX + ENDS,
        71,
        "bad/sandbox/one ended with code 3",
        KEPT,
        prepare=file("module.wat", wat.exits(3)),
    ),
    undone(
        "not an image",
        BAD_IMAGE,
        71,
        "is not an image",
        "skopeo inspect",
        prepare=file("image/x", b""),
    ),
    undone(
        "blob cut off",
        BAD_IMAGE,
        71,
        "image oci:{dir}/image: ? ?is damaged|is damaged",
        "skopeo",
        details="(?i)digest did not match",
        prepare=bad_images.cut_blob,
    ),
    undone("blob changed", BAD_IMAGE, 71, "is damaged", "skopeo", prepare=bad_images.flipped_blob),
    undone(
        "layer cut off",
        BAD_IMAGE,
        71,
        "layer sha256:.* the gzip stream is truncated",
        "skopeo",
        prepare=bad_images.honest_cut,
    ),
    undone(
        "wrong diff_id",
        BAD_IMAGE,
        71,
        "uncompressed digest is not sha256:0",
        "skopeo",
        prepare=bad_images.image(diff_ids=["sha256:" + "0" * 64]),
    ),
    undone(
        "other machine",
        BAD_IMAGE,
        71,
        "is made for linux/",
        "skopeo",
        prepare=bad_images.image(architecture="s390x"),
    ),
    undone(
        "layer that climbs",
        BAD_IMAGE,
        71,
        "entry '../../escaped' points outside",
        "skopeo",
        prepare=bad_images.image({"../../escaped": b"x"}),
    ),
    undone(
        "no command",
        BAD_IMAGE,
        71,
        "names no command",
        "set command",
        prepare=bad_images.image(config={"Cmd": None}),
    ),
    undone("no such command", CONTAINER + 'command = ["/no/such"]\n', 71, "/no/such", "set command"),
    undone(
        "not in PATH",
        CONTAINER + 'command = ["fnord"]\n',
        71,
        "fnord.*executable file not found",
        "set command",
    ),
    undone(
        "not a program",
        CONTAINER + 'command = ["/etc/passwd"]\n',
        71,
        "/etc/passwd.*(permission|format)",
        "set command",
    ),
    undone(
        "unknown user",
        CONTAINER + SLEEPS + 'user = "nobody-knows"\n',
        71,
        "bad/container/one: user 'nobody-knows'",
        "user =",
    ),
    undone(
        "unknown group",
        CONTAINER + SLEEPS + 'user = "0:nobody"\n',
        71,
        "group 'nobody'",
        "user =",
    ),
    undone(
        "ends at once",
        CONTAINER + 'command = ["sh", "-c", "echo oh dear; exit 3"]\nready = { tcp = 80 }\nnetworks = []\n',
        71,
        "ended with code 3 before",
        KEPT,
        details="^oh dear$",
    ),
    undone(
        "ends at once, unwatched",
        CONTAINER + 'command = ["sh", "-c", "exit 3"]\n',
        71,
        "ended with code 3 before",
        KEPT,
    ),
    undone(
        "never healthy",
        CONTAINER
        + 'command = ["sh", "-c", "echo up; exec sleep 99"]\nready = { exec = ["false"], timeout = "700ms" }\n',
        124,
        "bad/container/one was not ready after 0.7 s: waited for 'false' to succeed",
        KEPT,
        details="^up$",
    ),
    undone(
        "never answers",
        NETWORK + CONTAINER + SLEEPS + 'networks = ["net"]\nready = { http = ":81/", timeout = "500ms" }\n',
        124,
        "waited for http :81/ to answer",
        KEPT,
    ),
    undone(
        "port of another process",
        NETWORK + CONTAINER + SLEEPS + 'networks = ["net"]\nports = ["127.0.0.1:{port}:80"]\n',
        71,
        "port {port}/tcp is in use on this host by ",
        "^ss ",
        prepare=listener,
    ),
    undone(
        "address of nobody",
        NETWORK + CONTAINER + SLEEPS + 'networks = ["net"]\nports = ["203.0.113.7:{port}:80"]\n',
        71,
        "203.0.113.7 is not an address of this host",
        "^ip ",
    ),
    Refusal(
        "address of the host", '[network.net]\nsubnet = "{host}"\n', 71, "overlaps .*", "subnet", prepare=host_subnet
    ),
]


@pytest.mark.parametrize("case", [*PROFILES, *FILES, *MADE], ids=lambda case: case.name.replace(" ", "-"))
def test_refused(place: Place, case: Refusal) -> None:
    check(place, case)


@pytest.mark.parametrize(
    "layer",
    [
        {"out": ("symlink", "{dir}/outside"), "out/escaped": b"x"},
        {"out": ("symlink", "../../../../../../../..{dir}/outside"), "out/escaped": b"x"},
        {"one": ("symlink", "{dir}"), "two": ("symlink", "one/outside"), "two/escaped": b"x"},
        {"seen": ("hardlink", "{dir}/outside/secret")},
        {"{dir}/outside/escaped": b"x"},
        {"etc": ("symlink", "/etc"), "etc/passwd": b"x"},
    ],
    ids=["absolute link", "climbing link", "chain of links", "hard link", "absolute name", "link to etc"],
)
def test_a_layer_stays_in_its_tree(place: Place, layer: dict[str, Any]) -> None:
    """It starts or is refused; the host is as it was, and what is outside cannot be seen inside."""
    secret = place.write("outside/secret", "secret")
    before = traces(place)
    filled = {
        place.fill(name): (value[0], place.fill(value[1])) if isinstance(value, tuple) else value
        for name, value in layer.items()
    }
    bad_images.image(filled)(place)
    command = f'command = ["sh", "-c", "cat /seen /out/* {secret}; exit 0"]\n'
    path = str(place.write("bad.toml", place.fill(BAD_IMAGE + command + ENDS)))
    passwd = Path("/etc/passwd").read_bytes()
    done = place.vmtui("--profile", path)
    assert_harmless(done, done.stderr.decode())
    assert done.returncode in (0, 71), done.stderr
    if done.returncode == 0:
        assert b"secret" not in place.vmtui("logs", "one").stdout.replace(str(secret).encode(), b"")
        assert place.vmtui("down", "bad").returncode == 0
    assert os.listdir(secret.parent) == ["secret"]
    assert secret.read_text() == "secret"
    assert secret.stat().st_nlink == 1
    assert Path("/etc/passwd").read_bytes() == passwd
    assert_as_before(place, before)
