"""What the QEMU backend reads and writes: archives, modules, kernels, telnet, marks, reports. Much of it is hostile."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from vmtui.backends.qemu import binaries as proving
from vmtui.backends.qemu import state
from vmtui.core.errors import InvalidInput
from vmtui.core.resource import Kind, Port, Ref
from vmtui.guests import binaries, cpio, initramfs, kernel, modules, telnet
from vmtui.guests import run as run_files
from vmtui.guests.agent import Bracket
from vmtui.host.process import ProcessId, boot_id

GUEST = Path(kernel.__file__).with_name("guest")
PROOF = Path(state.__file__).with_name("guest") / "proof.S"


@pytest.mark.parametrize(
    ("source", "made"),
    [(GUEST / "fresh.S", binaries.FRESH), (GUEST / "vsock.S", binaries.VSOCK), (PROOF, proving.proof())],
    ids=["fresh", "vsock", "proof"],
)
def test_the_binaries_are_what_the_sources_say(source: Path, made: bytes, tmp_path: Path) -> None:
    if shutil.which("as") is None or shutil.which("ld") is None:
        pytest.skip("needs as and ld: apt-get install binutils")
    subprocess.run(["as", str(source), "-o", str(tmp_path / "o")], check=True)
    link = ["ld", "-e", "0", "-Ttext=0", "--oformat", "binary", "-o", str(tmp_path / "out"), str(tmp_path / "o")]
    subprocess.run(link, check=True)
    assert (tmp_path / "out").read_bytes() == made


def test_archives_are_read_by_cpio(tmp_path: Path) -> None:
    entries = [cpio.directory("d"), cpio.file("d/f", b"odd", mode=0o640), cpio.link("d/l", "f"), cpio.file("e", b"")]
    data = cpio.archive(entries) + bytes(512) + cpio.archive([cpio.file("d/g", bytes(1000))])
    assert len(data) % 4 == 0
    if shutil.which("cpio") is None:
        pytest.skip("needs cpio: apt-get install cpio")
    subprocess.run(["cpio", "-id", "--quiet"], input=cpio.archive(entries), cwd=tmp_path, check=True)
    assert (tmp_path / "d/f").read_bytes() == (tmp_path / "d/l").read_bytes() == b"odd"
    assert (tmp_path / "d/f").stat().st_mode & 0o777 == 0o640


def elf(modinfo: bytes) -> bytes:
    """An ELF64 file with a .modinfo section."""
    names = b"\0.modinfo\0.shstrtab\0"
    body = modinfo + names
    table = 64 + len(body)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2
    )

    def section(name: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, size, 0, 0, 1, 0)

    return header + body + bytes(64) + section(1, 64, len(modinfo)) + section(10, 64 + len(modinfo), len(names))


def test_modules_load_after_what_they_need(tmp_path: Path) -> None:
    tree = {"virtio-net": "net_failover,virtio", "net_failover": "failover", "failover": "", "virtio": "virtio_ring",
            "virtio_ring": "", "a": "b", "b": "a", "lost": "gone"}  # fmt: skip
    for name, needs in tree.items():
        (tmp_path / f"{name}.ko").write_bytes(elf(b"license=GPL\0depends=" + needs.encode() + b"\0name=x\0"))
    found = modules.Modules(tmp_path)
    assert found.load_order(["virtio_net", "built_in"]) == [
        "failover",
        "net_failover",
        "virtio_ring",
        "virtio",
        "virtio_net",
    ]
    assert found.load_order(["a"]) == ["b", "a"]  # a circle ends
    assert found.load_order(["lost"]) == ["lost"]


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_modules(suffix: str, tmp_path: Path) -> None:
    data = elf(b"depends=x\0")
    (tmp_path / f"m.ko{suffix}").write_bytes(COMPRESS[suffix](data))
    assert modules.Modules(tmp_path).read("m") == data
    (tmp_path / f"m.ko{suffix}").write_bytes(b"damaged")
    with pytest.raises(InvalidInput, match="cannot read kernel module"):
        modules.Modules(tmp_path).read("m")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_module_or_refused(data: bytes) -> None:
    for module in (data, b"\x7fELF\x02\x01" + data, elf(data)):
        with contextlib.suppress(InvalidInput):
            assert all(isinstance(name, str) for name in modules.depends(module))


def bzimage(version: bytes = b"6.1.0-test (who@where) #1", protocol: int = 0x20F) -> bytes:
    head = bytearray(0x1000)
    head[0x1F1] = 7
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, protocol)
    struct.pack_into("<H", head, 0x20E, 0x100)
    head[0x300 : 0x300 + len(version)] = version
    return bytes(head)


def test_kernels_say_their_release(tmp_path: Path) -> None:
    image = tmp_path / "boot" / "vmlinuz"
    image.parent.mkdir()
    image.write_bytes(bzimage())
    (tmp_path / "lib/modules/6.1.0-test").mkdir(parents=True)
    found = kernel.of_file(image)
    assert (found.release, found.modules) == ("6.1.0-test", tmp_path / "lib/modules/6.1.0-test")
    image.write_bytes(bzimage(b"../../etc x"))
    assert kernel.of_file(image).modules is None
    image.write_bytes(bzimage(protocol=0x200))
    with pytest.raises(InvalidInput, match=r"too old: boot protocol 2\.00"):
        kernel.of_file(image)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=0x400))
def test_any_bytes_are_a_kernel_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "some-kernel"
    for content in (data, bzimage()[:0x206] + data):
        path.write_bytes(content)
        with contextlib.suppress(InvalidInput):
            assert "/" not in kernel.release_of(path)


@given(st.binary(), st.binary(), st.integers(min_value=1, max_value=7))
def test_a_bracket_gives_what_is_between_its_marks(inside: bytes, before: bytes, step: int) -> None:
    mark = b"\0mark-of-a-session"
    bracket = Bracket(mark)
    sent = before.replace(b"\0", b"") + mark + inside.replace(mark, b"") + mark + b"42\n"
    got = b"".join(bracket.feed(sent[at : at + step]) for at in range(0, len(sent), step))
    assert got == inside.replace(mark, b"")
    assert bracket.ended
    assert bracket.after == b"42\n"


def test_a_bracket_holds_back_only_what_may_be_a_mark() -> None:
    bracket = Bracket(b"\0abc")
    assert bracket.feed(b"noise\0abcprompt$ ") == b"prompt$ "
    assert bracket.feed(b"x\0a") == b"x"
    assert bracket.feed(b"d") == b"\0ad"


@given(st.binary(), st.integers(min_value=1, max_value=5))
def test_telnet_carries_every_byte(data: bytes, step: int) -> None:
    decoder = telnet.Decoder()
    sent = b"\xff\xfd\x1f" + data.replace(b"\xff", b"\xff\xff") + b"\xff\xfb\x01" + telnet.window_size(24, 80)
    assert b"".join(decoder.feed(sent[at : at + step]) for at in range(0, len(sent), step)) == data


@given(st.binary())
def test_telnet_never_fails(data: bytes) -> None:
    telnet.Decoder().feed(data)


@given(st.integers(), st.integers())
def test_a_window_size_never_holds_a_command(rows: int, columns: int) -> None:
    sent = telnet.window_size(rows, columns)
    assert len(sent) == 9
    assert 255 not in sent[3:7]


WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(WORDS)
def test_commands_reach_a_shell_as_they_are(words: list[str]) -> None:
    command = initramfs.Command(argv=tuple(words), environment=(("A", "$(false)'\n"),))
    script = f"launch() {{ shift 4; printf '%s\\0' \"$@\"; }}; {command.script()}"
    said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True).stdout
    assert said.decode("utf-8").split("\0")[:-1][2:] == words
    assert said.decode("utf-8").split("\0")[1] == "A=$(false)'\n"


def run_folder(folder: Path, **files: str) -> Path:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    for name, text in files.items():
        (run / name).write_text(text)
    return run


HERE = ProcessId(2**22 - 1, 1, "")


@pytest.mark.parametrize(
    ("files", "log", "code", "reason"),
    [
        ({"exit": "0\n"}, "", 0, "the guest powered off"),
        ({"exit": "0\n", "status": "booted 1\nexit 42\n"}, "", 42, "command exited with 42"),
        ({"status": "exit 3\n"}, "", 3, "command exited with 3"),
        ({"exit": "137\n"}, "", 137, "qemu was killed by signal 9"),
        ({"exit": "1\n", "errors": "qemu: first\nqemu: no such thing\n"}, "", 1, "qemu: no such thing"),
        (
            {"exit": "0\n"},
            "[1.0] Kernel panic - not syncing: VFS: no \x1b[31mroot\r\n",
            1,
            "kernel panic: VFS: no  [31mroot",
        ),
        ({"exit": "0\n", "status": "exit 99999\nexit x\n\xff"}, "", 0, "the guest powered off"),
        ({"exit": "nonsense"}, "", 137, "qemu ended unseen: its parent process was killed"),
    ],
)
def test_how_a_vm_ended(files: dict[str, str], log: str, code: int, reason: str, tmp_path: Path) -> None:
    run_folder(tmp_path, **files)
    (tmp_path / "serial.log").write_text(log)
    found = state.ending(tmp_path, ProcessId(HERE.pid, 1, boot_id()))
    assert (found.code, found.reason) == (code, reason)


def test_a_vm_that_a_reboot_ended(tmp_path: Path) -> None:
    run_folder(tmp_path, process="4000000 1 another-boot\n")
    seen = state.observe(tmp_path)
    assert seen.exit is not None
    assert seen.exit.reason == "the host restarted while it ran"


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_reports_of_a_guest_are_only_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "reports"
    folder.mkdir(exist_ok=True)
    run = run_folder(folder)
    port = Port(network=Ref("a", Kind.NETWORK, "lab"), consumer=Ref("a", Kind.VM, "x"), index=0, medium="tap",
                interface="t", mac="52:54:00:00:00:01", address="10.0.0.2")  # fmt: skip
    for name in ("status", "exit", "errors", "process", "parent", "launch.json"):
        (run / name).write_bytes(data)
    (address,) = run_files.addresses(run, (port,))
    assert address.network == "lab"
    state.observe(folder)


def test_addresses_belong_to_the_card_that_has_them(tmp_path: Path) -> None:
    status = (
        "address eth0 52:54:00:00:00:01 10.0.0.7/24\n"
        "address eth1 52:54:00:00:00:99 1.2.3.4/8\n"
        "address eth0 52:54:00:00:00:01 10.0.0.8/24\n"
        "address eth0 52:54:00:00:00:01 \x1b[2J/24\n"
    )
    run = run_folder(tmp_path, status=status)
    port = Port(network=Ref("a", Kind.NETWORK, "lab"), consumer=Ref("a", Kind.VM, "x"), index=0, medium="tap",
                interface="t", mac="52:54:00:00:00:01", address="10.0.0.2")  # fmt: skip
    assert [(found.address, found.interface) for found in run_files.addresses(run, (port,))] == [("10.0.0.8", "eth0")]
