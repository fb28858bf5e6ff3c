"""Small parts of the container runtime layer: capabilities, signals, id ranges, the choice of a runtime."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.backends.oci import names
from vmtui.core.errors import InvalidInput, MissingCapability, OperationFailed
from vmtui.core.resource import Kind, Port, Ref
from vmtui.runtime import capabilities, idmap, oci_runtime, signals
from vmtui.runtime.idmap import IdRanges
from vmtui.runtime.oci_runtime import Runtime


def test_capabilities() -> None:
    assert capabilities.resolve((), ()) == tuple(sorted(capabilities.DEFAULT))
    assert capabilities.resolve(("net_raw",), ("ALL",)) == ("CAP_NET_RAW",)
    assert capabilities.resolve(("ALL",), ("sys_admin",)) == tuple(sorted({*capabilities.KNOWN} - {"CAP_SYS_ADMIN"}))
    assert "CAP_KILL" not in capabilities.resolve((), ("CAP_KILL",))
    with pytest.raises(InvalidInput, match="FLY"):
        capabilities.resolve(("FLY",), ())
    kernel = Path("/proc/sys/kernel/cap_last_cap")
    assert int(kernel.read_text()) < len(capabilities.KNOWN)


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("USR1", signal.SIGUSR1), ("SIGRTMIN+3", signal.SIGRTMIN + 3)],
)
def test_signals(text: str, number: int) -> None:
    assert signals.number(text) == number


@given(st.text(max_size=15))
def test_any_text_is_a_signal_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert 0 < signals.number(text) <= signal.SIGRTMAX


def test_id_ranges_are_kept_shared_by_none_and_given_back(tmp_path: Path) -> None:
    ranges = IdRanges(tmp_path / "idmaps", "abcd")
    refs = [Ref("p", Kind.CONTAINER, f"c{number}") for number in range(30)]
    bases = [ranges.take(ref) for ref in refs]
    assert len(set(bases)) == 30
    assert all(base >= 1 << 20 and base + idmap.COUNT <= 1 << 31 for base in bases)
    assert [ranges.take(ref) for ref in refs] == bases
    assert [IdRanges(tmp_path / "idmaps", "abcd").of(ref) for ref in refs] == bases
    for ref in refs:
        ranges.release(ref)
        ranges.release(ref)
    assert not (tmp_path / "idmaps").exists()
    assert ranges.of(refs[0]) is None


def test_all_ranges_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idmap, "_range_of_containers", lambda: (1 << 20, 2 * idmap.COUNT))
    ranges = IdRanges(tmp_path / "idmaps", "abcd")
    assert {ranges.take(Ref("p", Kind.CONTAINER, name)) for name in ("a", "b")} == {1 << 20, (1 << 20) + idmap.COUNT}
    with pytest.raises(OperationFailed, match="2 id ranges"):
        ranges.take(Ref("p", Kind.CONTAINER, "c"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("containers:2147483648:1048576\n", (2147483648, 1048576)),
        ("other:1:2\ncontainers:100000:65536\n", (100000, 65536)),
        ("containers:100000:1000\n", (idmap.DEFAULT_FIRST, idmap.DEFAULT_COUNT)),
        ("containers:oops\n", (idmap.DEFAULT_FIRST, idmap.DEFAULT_COUNT)),
        ("", (idmap.DEFAULT_FIRST, idmap.DEFAULT_COUNT)),
    ],
)
def test_the_range_of_user_containers(tmp_path: Path, content: str, expected: tuple[int, int]) -> None:
    (tmp_path / "subuid").write_text(content)
    assert idmap._range_of_containers(tmp_path / "subuid", tmp_path / "subuid") == expected
    missing = idmap._range_of_containers(tmp_path / "subuid", tmp_path / "none")
    assert missing == (idmap.DEFAULT_FIRST, idmap.DEFAULT_COUNT)


def test_the_choice_of_a_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = {"runc", "crun"}

    def which(name: str, *, path: str | None = None) -> str | None:
        return f"/bin/{name}" if name in installed else None

    monkeypatch.setattr(shutil, "which", which)
    assert oci_runtime.choose("auto", "hybrid").name == "runc"
    assert oci_runtime.choose("auto", "v1").name == "runc"
    assert oci_runtime.choose("auto", "v2").name == "crun"
    assert oci_runtime.choose("runc", "v2").reason
    for preference, mode in (("crun", "hybrid"), ("auto", "none")):
        with pytest.raises(MissingCapability) as refused:
            oci_runtime.choose(preference, mode)
        assert refused.value.hint
    installed.discard("crun")
    assert oci_runtime.choose("auto", "v2").name == "runc"
    installed.clear()
    with pytest.raises(MissingCapability, match="runc"):
        oci_runtime.choose("auto", "v1")


@pytest.mark.parametrize(
    ("version", "vulnerable"),
    [
        ("1.1.5+ds1", True),
        ("1.2.7", True),
        ("1.2.8", False),
        ("1.3.2", True),
        ("1.3.6", False),
        ("1.4.0", False),
        ("?", False),
    ],
)
def test_versions_with_known_escapes(version: str, vulnerable: bool) -> None:
    runc = Runtime(name="runc", path="/bin/runc", reason="")
    assert oci_runtime.is_vulnerable(runc, version) is vulnerable
    assert not oci_runtime.is_vulnerable(Runtime(name="crun", path="/bin/crun", reason=""), version)


def test_the_last_error_of_a_runtime(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert oci_runtime.last_error(log) == ""
    log.write_text(
        '{"level":"error","msg":"first"}\n{"level":"error","msg":"no \\u001b[2J"}\n{"level":"debug"}\nrubbish\n[1]\n'
    )
    assert oci_runtime.last_error(log) == "no  [2J"


def test_the_files_of_etc(tmp_path: Path) -> None:
    network, me = Ref("p", Kind.NETWORK, "lab"), Ref("p", Kind.CONTAINER, "c")
    port = Port(
        network=network,
        consumer=me,
        index=0,
        medium="veth",
        interface="v0",
        address="10.1.2.3",
        dns=("10.1.2.1",),
        search="vmtui",
    )
    names.write(tmp_path / "etc", "box", (port, port))
    before = (tmp_path / "etc" / "hosts").stat().st_ino
    assert (tmp_path / "etc" / "resolv.conf").read_text() == "search vmtui\nnameserver 10.1.2.1\n"
    assert "10.1.2.3\tbox\n" in (tmp_path / "etc" / "hosts").read_text()
    names.write(tmp_path / "etc", "box", ())
    assert (tmp_path / "etc" / "hosts").stat().st_ino == before, "what is mounted is the file, not its name"
    assert (tmp_path / "etc" / "resolv.conf").read_text() == ""
    assert (tmp_path / "etc" / "hostname").read_text() == "box\n"
