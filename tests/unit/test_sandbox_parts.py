"""The parts of sandboxes that run nothing: outcomes, the log and its reader, the cache, the filter, module files."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.filters import verdict
from vmtui.backends.wasm import logs, program, state
from vmtui.backends.wasm.backend import WasmBackend
from vmtui.backends.wasm.module import read
from vmtui.backends.wasm.options import WasmOptions
from vmtui.core.backend import Context, Desired, LogLine
from vmtui.core.errors import InvalidInput, MissingCapability, OperationFailed
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import SandboxSpec
from vmtui.core.units import ReadOnlyMount, Size
from vmtui.host.process import boot_id
from vmtui.sandbox import outcome
from vmtui.sandbox.cache import DIGEST_BYTES, Cache
from vmtui.sandbox.config import Config, Volume, parse
from vmtui.sandbox.log import MAX_LINE_BYTES, Log
from vmtui.sandbox.monitor import Clock
from vmtui.sandbox.outcome import Ending, Outcome, of_death, of_report
from vmtui.walls import bpf, denials

TIMEOUT, STOP, NOTHING = Ending("timeout", 5.0), Ending("stop"), Ending()


@pytest.mark.parametrize(
    ("report", "ending", "expected"),
    [
        ({"kind": "exit", "code": 3}, NOTHING, Outcome(3)),
        ({"kind": "exit", "code": -1}, NOTHING, Outcome(255)),
        ({"kind": "exit", "code": 0}, TIMEOUT, Outcome(0)),
        ({"kind": "trap", "trap": "INTERRUPT"}, TIMEOUT, Outcome(124, "timed out after 5s", "timeout")),
        ({"kind": "trap", "trap": "INTERRUPT"}, STOP, Outcome(143, "stopped", "stop")),
        ({"kind": "trap", "trap": "OUT_OF_FUEL"}, STOP, Outcome(134, "out of fuel after 9 units", "out-of-fuel")),
        ({"kind": "trap", "trap": "UNREACHABLE"}, NOTHING, Outcome(134, outcome.TRAPS["UNREACHABLE"], "unreachable")),
        ({"kind": "trap", "trap": "", "message": "x\nCaused by:\n  a  b"}, NOTHING, Outcome(134, "a b", "")),
        ({}, NOTHING, Outcome(125, "", "not-started")),
    ],
)
def test_outcomes_of_reports(report: dict[str, Any], ending: Ending, expected: Outcome) -> None:
    assert of_report(report, ending, 9) == expected


def test_outcomes_of_deaths() -> None:
    assert of_death(9, 0, NOTHING) == Outcome(137, "killed by SIGKILL", "signal")
    assert of_death(9, 0, TIMEOUT) == Outcome(124, "timed out after 5s", "timeout")
    assert of_death(9, 0, STOP) == Outcome(143, "stopped", "stop")
    assert of_death(0, 1, NOTHING).code == 125


@given(st.dictionaries(st.sampled_from(["kind", "code", "trap", "message"]), st.text() | st.integers() | st.none()))
def test_any_report_is_an_outcome_that_is_safe_to_print(report: dict[str, Any]) -> None:
    for ending in (NOTHING, TIMEOUT, STOP):
        found = of_report(report, ending, 1)
        assert 0 <= found.code <= 255
        assert found.reason.isprintable()
        assert len(found.reason) <= outcome.MAX_REASON_CHARS


def test_a_clock_stands_still() -> None:
    clock = Clock(10.0)
    clock.stop()
    left = clock.left()
    assert left is not None
    assert 0 < left <= 10
    assert clock.left() == left
    clock.go()
    assert clock.running
    assert Clock(None).left() is None


def lines(directory: Path, tail: int | None = None) -> list[LogLine]:
    async def collect() -> list[LogLine]:
        return [line async for line in logs.read(directory, tail=tail, follow=False)]

    return asyncio.run(collect())


def test_what_is_logged_is_read(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), 1 << 20)
    log.write("stdout", b"one\ntwo")
    log.write("stderr", b"\xff bad\n")
    log.write("stdout", b" is whole\n\nlast")
    log.close()
    found = lines(tmp_path)
    assert [(line.stream, line.text) for line in found] == [
        ("stdout", "one"),
        ("stderr", "\ufffd bad"),
        ("stdout", "two is whole"),
        ("stdout", ""),
        ("stdout", "last"),
    ]
    assert all(line.at is not None and line.at > 1.7e9 for line in found)
    assert [line.text for line in lines(tmp_path, 2)] == ["", "last"]
    assert lines(tmp_path, 0) == []


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=300)), max_size=30),
    st.integers(0, 3 * MAX_LINE_BYTES),
)
def test_any_output_is_read_as_it_was_written(chunks: list[tuple[str, bytes]], long: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = Log(f"{folder}/log", 10 << 20)
        chunks = [*chunks, ("stdout", b"x" * long)]
        for stream, data in chunks:
            log.write(stream, data)
        log.close()
        found = lines(Path(folder))
    for stream in ("stdout", "stderr"):
        whole = b"".join(data for name, data in chunks if name == stream)
        expected = whole.split(b"\n")
        if not expected[-1]:
            expected.pop()
        seen = [line.text for line in found if line.stream == stream]
        assert "\n".join(seen).replace("\ufffd", "") == b"\n".join(expected).decode("utf-8", "replace").replace(
            "\ufffd", ""
        )


def test_a_log_is_bounded(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), 100 << 10)
    for n in range(5000):
        log.write("stdout", b"%d %s\n" % (n, b"x" * 90))
    log.write("stdout", b"y" * (1 << 20))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100 << 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    log.close()
    assert lines(tmp_path, 1)[0].text.endswith("yyy")


@given(st.binary(max_size=200))
def test_any_entry_is_a_line_or_a_part(entry: bytes) -> None:
    logs.Parser().line(entry)


def test_what_is_no_entry_is_shown_as_it_is() -> None:
    assert logs.Parser().line(b"from another program") == LogLine(text="from another program")


def put(code: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, code)
    return fd


def test_a_cache_gives_back_what_it_got(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"))
    assert cache.load("key") is None
    assert cache.note == "miss"
    cache.store("key", put(b"code"))
    fd = cache.load("key")
    assert fd is not None
    assert os.pread(fd, 100, 0) == b"code"
    assert cache.note == "hit"
    assert sorted(os.listdir(cache.directory)) == ["key"]
    cache.drop("key")
    cache.drop("key")
    assert cache.load("key") is None


def test_a_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(str(tmp_path / "cache"))
    monkeypatch.setattr("vmtui.sandbox.cache.MAX_TOTAL_BYTES", 3 * (100 + DIGEST_BYTES))
    for n in range(6):
        cache.store(str(n), put(bytes(100)))
        os.utime(tmp_path / "cache" / str(n), (n, n))
    (tmp_path / "cache" / ".half.1").write_bytes(b"")
    os.utime(tmp_path / "cache" / ".half.1", (0, 0))
    cache.store("6", put(bytes(100)))
    assert sorted(os.listdir(cache.directory)) == ["4", "5", "6"]


def test_a_cache_that_cannot_be_written_is_noted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(str(tmp_path / "file" / "cache"))
    cache.store("key", put(b"code"))
    assert cache.note.startswith("unusable")


def allowed(machine: str, number: int, flags: int = 0, arch: int | None = None) -> int:
    """What the filter says."""
    return verdict(denials.program(machine), bpf.AUDIT_ARCH[machine] if arch is None else arch, number, flags)


@pytest.mark.parametrize("machine", denials.MACHINES)
def test_the_filter(machine: str) -> None:
    clone, clone3, denied = denials.MACHINES[machine]
    for number in range(600):
        said = allowed(machine, number)
        if number in denied.values() or number == clone:
            assert said == bpf.RET_ERRNO | 1, number
        elif number == clone3:
            assert said == bpf.RET_ERRNO | 38
        else:
            assert said == bpf.RET_ALLOW, number
    assert allowed(machine, clone, bpf.CLONE_THREAD | 0xFF) == bpf.RET_ALLOW
    assert allowed(machine, clone, 17) == bpf.RET_ERRNO | 1
    assert allowed(machine, 1, arch=0) == bpf.RET_KILL
    assert allowed(machine, bpf.X32_BIT | 1) == bpf.RET_ERRNO | 1


@pytest.mark.parametrize("content", [b"\0asm\1\0\0\0", b"(module)", b"  ;; text\n(module)"])
def test_module_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "module"
    path.write_bytes(content)
    assert read(path) == content


@pytest.mark.parametrize(
    "content", [b"", b"\0asm", b"\0asm\2\0\0\0", b"\0asm\x0d\0\1\0", b"hello", b"(\xff)", b"(\0)", b"#!/bin/sh\n"]
)
def test_what_is_no_module_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "module"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=str(path)):
        read(path)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (
            {"code": "invalid-module", "message": "expected `(`\n     --> <anon>:2:3\n |"},
            InvalidInput,
            "m.wat:2:3: expected `(`",
        ),
        (
            {"code": "invalid-module", "message": "failed to compile: x\n\nCaused by:\n  0: a\n  1: type mismatch"},
            InvalidInput,
            "m.wat: failed to compile: x: 1: type mismatch",
        ),
        ({"code": "isolation", "message": "[Errno 1] unshare"}, MissingCapability, "isolated"),
        ({"code": "host", "message": "\x1b[31mred"}, OperationFailed, "m.wat:  [31mred"),
        ({"code": 5}, OperationFailed, "m.wat"),
    ],
)
def test_failures_of_the_program(answer: dict[str, Any], kind: type[Exception], text: str) -> None:
    fault = program.fault(answer, "m.wat")
    assert type(fault) is kind
    assert " ".join(text.split()) in " ".join(str(fault).split())


def test_the_program_understands_the_configuration() -> None:
    launch = program.Launch(
        directory="/d", sha256="0", cache="/c", wasmtime="50", entrypoint="_start", memory_bytes=1, uid=2, args=("a",),
        environment={"A": "1"}, volumes=(program.Volume(source="/s", target="/t", read_only=True),), fuel=3,
        timeout_s=0.5, log_max_bytes=4, reap=("r",),
    )  # fmt: skip
    assert parse(msgspec.json.encode(launch)) == Config(
        directory="/d", module="module", sha256="0", cache="/c", wasmtime="50", entrypoint="_start", memory_bytes=1,
        uid=2, parent=os.getpid(), args=("a",), environment=(("A", "1"),), volumes=(Volume("/s", "/t", True),), fuel=3,
        timeout_s=0.5, log_max_bytes=4, reap=("r",),
    )  # fmt: skip
    with pytest.raises(ValueError):
        parse(b'{"unknown": 1}')


GONE = {"pid": 1 << 30, "start_ticks": 1, "boot": "now"}


@pytest.mark.parametrize(
    ("result", "boot", "phase", "code"),
    [
        (None, "now", Phase.BROKEN, 137),
        (None, "another", Phase.EXITED, 137),
        ({"monitor": GONE, "code": 3, "at": 1.0}, "now", Phase.EXITED, 3),
        ({"monitor": GONE, "code": 143, "at": 1.0, "stopped": True}, "now", Phase.STOPPED, 143),
        ({"monitor": GONE | {"pid": 7}, "code": 3, "at": 1.0}, "now", Phase.BROKEN, 137),
        ({"monitor": "nonsense"}, "now", Phase.BROKEN, 137),
    ],
)
def test_phases(tmp_path: Path, result: dict[str, Any] | None, boot: str, phase: Phase, code: int) -> None:
    def write(name: str, value: object) -> None:
        text = msgspec.json.encode(value).decode().replace('"now"', f'"{boot_id() if boot == "now" else boot}"')
        (tmp_path / name).write_text(text)

    assert state.observe(tmp_path).phase is Phase.STOPPED
    write("process.json", {"monitor": GONE, "guest": GONE, "started_at": 1.0})
    if result is not None:
        write("result.json", result)
    seen = state.observe(tmp_path)
    assert seen.exit is not None
    assert (seen.phase, seen.exit.code) == (phase, code)
    for garbage in (b"", b"{", b"\xff" * 10, b"[" * 100000):
        (tmp_path / "process.json").write_bytes(garbage)
        assert state.observe(tmp_path).phase is Phase.STOPPED


async def test_checks_find_all_that_is_wrong(context: Context, tmp_path: Path) -> None:
    volumes = (ReadOnlyMount("name", "/a"), ReadOnlyMount(str(tmp_path / "gone"), "/b"), ReadOnlyMount("/", "/c"))
    spec = SandboxSpec(
        module=str(tmp_path / "none.wasm"), volumes=volumes, fuel=1 << 63, args=("\0",), environment={"A=B": "C"}
    )
    desired = Desired(ref=Ref("p", Kind.SANDBOX, "x"), backend="wasm", spec=spec, options=WasmOptions())
    problems = await WasmBackend(context).check(desired, ())
    assert [problem.code for problem in problems] == ["volume", "volume", "fuel", "environment", "text", "module"]
    assert all(problem.message and problem.hint for problem in problems)


async def test_another_backend_s_folder_is_left_alone(context: Context) -> None:
    ref, backend = Ref("p", Kind.SANDBOX, "x"), WasmBackend(context)
    directory = context.resource_dir(ref)
    directory.mkdir(parents=True)
    (directory / "record.json").write_text('{"desired": {"backend": "other"}}')
    assert list(await backend.scan()) == []
    await backend.delete(ref, purge=True)
    assert directory.is_dir()
    (directory / "record.json").write_text('{"half')
    (status,) = await backend.scan()
    assert (status.phase, status.problems[0].code) == (Phase.BROKEN, "incomplete")
    await backend.delete(ref, purge=True)
    assert not directory.exists()


def test_options_survive_a_record(context: Context) -> None:
    backend, spec = WasmBackend(context), SandboxSpec(module="/m.wasm")
    options = WasmOptions(log_max_size=Size(1 << 20))
    desired = Desired(ref=Ref("p", Kind.SANDBOX, "x"), backend="wasm", spec=spec, options=options, spec_hash="1")
    backend._records.begin(desired)
    record = backend._records.read(desired.ref)
    assert record is not None
    assert record.desired == desired


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("vmtui.backends.wasm.backend", ("wasmtime", "vmtui.sandbox", "subprocess_exec", "pyroute2")),
        ("vmtui.sandbox.launcher", ("wasmtime", "asyncio", "msgspec", "dataclasses", "inspect", "socket")),
    ],
)
def test_what_is_not_imported(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(absent) & set(loaded) == set()
