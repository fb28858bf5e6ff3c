"""Real sandboxes: what a module may do, what stops it, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import wat
from tests.support.sandboxes import END_S, Sandboxes, status_of
from vmtui.backends.wasm.options import WasmOptions
from vmtui.core.backend import Attachments, silent
from vmtui.core.errors import Fault, InvalidInput
from vmtui.core.lifecycle import Phase
from vmtui.core.units import Duration, ReadOnlyMount, Size

ROOT = os.geteuid() == 0
pytestmark = pytest.mark.real

# WASI preview 1: rights and open flags
FD_READ, FD_WRITE = 1 << 1, 1 << 6
CREATE = 1
ERRNO_NOT_CAPABLE, ERRNO_PERMISSION, ERRNO_READ_ONLY = 76, 63, 69


async def test_it_speaks_and_ends(sandboxes: Sandboxes) -> None:
    begun = time.time()
    ref = await sandboxes.start(wat.speaks("hello", "world"))
    status = await sandboxes.ended(ref)
    assert status.exit is not None
    assert (status.phase, status.exit.code, status.exit.reason) == (Phase.EXITED, 0, "")
    assert begun - 1 < status.exit.at < time.time() + 1
    assert await sandboxes.said(ref) == ["hello", "world"]
    assert int(status.fact("fuel used")) > 0
    assert status.fact("linear memory") == "256KiB"
    assert len(status.fact("module sha256")) == 64
    assert status.fact("module") == str(sandboxes.folder / "one.wat")
    assert status.fact("wasmtime")
    assert status.problems == ()
    reaped, deadline = sandboxes.context.paths.cache / "reaped", time.monotonic() + END_S
    while not reaped.exists() or not reaped.read_text():
        assert time.monotonic() < deadline, "nobody acted on its end"
        await asyncio.sleep(0.01)
    assert reaped.read_text().strip() == str(sandboxes.context.paths.state.parent)


async def test_arguments_and_environment_reach_it(sandboxes: Sandboxes) -> None:
    dump = wat.module(
        """(drop (call $args_sizes_get (i32.const 200) (i32.const 204)))
        (drop (call $args_get (i32.const 4096) (i32.const 2048)))
        (call $say (i32.const 1) (i32.const 2048) (i32.load (i32.const 204)))
        (drop (call $environ_sizes_get (i32.const 200) (i32.const 204)))
        (drop (call $environ_get (i32.const 4096) (i32.const 2048)))
        (call $say (i32.const 2) (i32.const 2048) (i32.load (i32.const 204)))"""
    ).replace(
        '(memory (export "memory")',
        "".join(
            f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param i32 i32) (result i32)))\n'
            for name in ("args_sizes_get", "args_get", "environ_sizes_get", "environ_get")
        )
        + '(memory (export "memory")',
        1,
    )
    ref = await sandboxes.start(dump, args=("a", "b c"), environment={"NAME": "valué"})
    await sandboxes.ended(ref)
    assert await sandboxes.said(ref) == ["one.wat\0a\0b c\0"]
    assert await sandboxes.said(ref, "stderr") == ["NAME=valué\0"]  # and nothing of ours


@pytest.mark.parametrize("code", [0, 1, 125, 126, 200, 255])
async def test_exit_codes(sandboxes: Sandboxes, code: int) -> None:
    assert await sandboxes.result(wat.exits(code)) == (code, "")


TRAPS = {
    "unreachable": ("unreachable", "unreachable instruction executed"),
    "division": ("(drop (i32.div_s (i32.const 1) (i32.load (i32.const 0))))", "integer division by zero"),
    "bounds": ("(drop (i32.load (i32.const -8)))", "memory access out of bounds"),
}


@pytest.mark.parametrize("trap", TRAPS)
async def test_traps(sandboxes: Sandboxes, trap: str) -> None:
    source, reason = TRAPS[trap]
    assert await sandboxes.result(wat.module(source)) == (134, reason)


async def test_endless_recursion(sandboxes: Sandboxes) -> None:
    source = wat.module("(call $f)", functions="(func $f (call $f))")
    assert await sandboxes.result(source) == (134, "stack overflow")


async def test_fuel_runs_out(sandboxes: Sandboxes) -> None:
    ref = await sandboxes.start(wat.SPIN, fuel=1_000_000)
    status = await sandboxes.ended(ref)
    assert status.exit is not None
    assert (status.exit.code, status.exit.reason) == (134, "out of fuel after 1000000 units")
    assert status.fact("fuel used") == "1000000"
    assert status.fact("trap") == "out-of-fuel"


@pytest.mark.parametrize("source", [wat.SPIN, wat.SLEEP], ids=["computing", "waiting in the host"])
async def test_time_runs_out(sandboxes: Sandboxes, source: str) -> None:
    begun = time.monotonic()
    assert await sandboxes.result(source, timeout=Duration(0.3)) == (124, "timed out after 0.3s")
    assert time.monotonic() - begun >= 0.3


async def test_time_stands_still_while_paused(sandboxes: Sandboxes) -> None:
    ref = await sandboxes.start(wat.SPIN, timeout=Duration(3))
    await sandboxes.backend.pause(ref)
    assert (await sandboxes.backend.inspect(ref)).phase is Phase.PAUSED
    used = (await sandboxes.backend.stats(ref)).cpu_s
    await asyncio.sleep(3.5)
    assert (await sandboxes.backend.inspect(ref)).phase is Phase.PAUSED
    assert (await sandboxes.backend.stats(ref)).cpu_s == used
    await sandboxes.backend.resume(ref)
    assert (await sandboxes.backend.inspect(ref)).phase is Phase.RUNNING
    status = await sandboxes.ended(ref)
    assert status.exit is not None
    assert status.exit.code == 124


async def test_memory_grows_to_its_limit(sandboxes: Sandboxes) -> None:
    grow = """(if (i32.eq (memory.grow (i32.const 12)) (i32.const -1)) (then (call $proc_exit (i32.const 1))))
      (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then (call $proc_exit (i32.const 2))))"""
    ref = await sandboxes.start(wat.module(grow), memory=Size(1 << 20))
    status = await sandboxes.ended(ref)
    assert status.exit is not None
    assert status.exit.code == 0
    assert status.fact("linear memory") == "1MiB"


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "text": ("(module\n  (funk))", r"one\.wat:2:4: expected valid module field"),
    "types": ('(module (func (export "_start") (i32.add)))', "type mismatch"),
    "import": ('(module (import "env" "x" (func)) (func (export "_start")))', "unknown import: `env::x`"),
    "entrypoint": ('(module (func (export "main")))', "exports no function '_start'; its functions: main"),
    "parameters": ('(module (func (export "_start") (param i32)))', "takes parameters"),
    "memory": ('(module (memory (export "memory") 5000) (func (export "_start")))', "needs 327680000 bytes"),
    "two memories": ("(module (memory 1) (memory 1))", "multiple memories|multi-memory"),
    "garbage": (b"\x7fELF" + os.urandom(1000), "is not a WebAssembly module"),
    "truncated": (b"\0asm\1\0\0\0\1\xff", "one.wat: .*end|one.wat: .*unexpected"),
    "component": (b"\0asm\x0d\0\1\0", "is a WebAssembly component"),
    "empty": (b"", "is not a WebAssembly module"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_fit_module_fails_at_create(sandboxes: Sandboxes, case: str) -> None:
    source, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        await sandboxes.backend.create(sandboxes.desired(source), silent)
    assert list(await sandboxes.backend.scan()) == []


async def test_a_huge_module_is_refused(sandboxes: Sandboxes) -> None:
    desired = sandboxes.desired("(module)")
    os.truncate(desired.spec.module, 65 << 20)
    (problem,) = await sandboxes.backend.check(desired, ())
    assert "larger than 64 MiB" in problem.message
    with pytest.raises(InvalidInput, match="larger than 64 MiB"):
        await sandboxes.backend.create(desired, silent)


async def test_what_is_not_a_file_is_refused(sandboxes: Sandboxes) -> None:
    desired = sandboxes.desired("(module)")
    os.unlink(desired.spec.module)
    assert "No such file" in (await sandboxes.backend.check(desired, ()))[0].message
    os.mkfifo(desired.spec.module)
    assert "is not a file" in (await sandboxes.backend.check(desired, ()))[0].message


async def test_later_edits_of_the_file_do_not_matter(sandboxes: Sandboxes) -> None:
    desired = sandboxes.desired(wat.exits(5))
    await sandboxes.backend.create(desired, silent)
    Path(desired.spec.module).write_text(wat.exits(6))
    await sandboxes.backend.start(desired.ref, Attachments(), silent)
    status = await sandboxes.ended(desired.ref)
    assert status.exit is not None
    assert status.exit.code == 5
    assert status.fact("module").endswith("(changed since)")
    assert status.problems == ()


def opens(path: str, flags: int, rights: int, write: bool = False) -> str:
    """Ends with the errno of opening `path` in its folder, 0 if that went well."""
    put = "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 1))"
    then = f"""{put} (local.set $errno (call $fd_write (i32.load (i32.const 200)) (i32.const 0) (i32.const 1)
        (i32.const 8)))"""
    return wat.module(
        f"""(local $errno i32)
        (local.set $errno (call $open (i32.const 1024) (i32.const {len(path)}) (i32.const {flags})
          (i64.const {rights})))
        (if (i32.eqz (local.get $errno)) (then {then if write else ""}))
        (call $proc_exit (local.get $errno))""",
        data=wat.text(1024, path),
    )


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "there").write_text("data")
    (tmp_path / "secret").write_text("not for modules")
    (folder / "way-out").symlink_to(tmp_path / "secret")
    return folder


def mounts(folder: Path, read_only: bool) -> Sequence[ReadOnlyMount]:
    return (ReadOnlyMount(str(folder), "/data", read_only=read_only),)


async def test_a_folder_is_read_only(sandboxes: Sandboxes, shared: Path) -> None:
    code, _ = await sandboxes.result(opens("there", 0, FD_READ), volumes=mounts(shared, True))
    assert code == 0
    for path, flags in (("new", CREATE), ("there", 0)):
        name = f"write-{path}"
        code, _ = await sandboxes.result(opens(path, flags, FD_WRITE, True), name, volumes=mounts(shared, True))
        assert code in (ERRNO_NOT_CAPABLE, ERRNO_PERMISSION, ERRNO_READ_ONLY), path
    assert sorted(entry.name for entry in shared.iterdir()) == ["there", "way-out"]
    assert (shared / "there").read_text() == "data"


async def test_a_folder_is_writable_when_asked_for(sandboxes: Sandboxes, shared: Path) -> None:
    os.chown(shared, 12345 if ROOT else -1, 12345 if ROOT else -1)
    ref = await sandboxes.start(opens("new", CREATE, FD_WRITE, True), volumes=mounts(shared, False))
    status = await sandboxes.ended(ref)
    assert status.exit is not None
    assert status.exit.code == 0
    assert (shared / "new").read_text() == "n"
    assert (shared / "new").stat().st_uid == shared.stat().st_uid
    assert status.fact("user").startswith(f"{shared.stat().st_uid}:")


@pytest.mark.parametrize("path", ["../secret", "way-out", "/etc/passwd", "there/../../secret"])
@pytest.mark.parametrize("read_only", [True, False])
async def test_there_is_no_way_out_of_a_folder(sandboxes: Sandboxes, shared: Path, path: str, read_only: bool) -> None:
    code, _ = await sandboxes.result(opens(path, 0, FD_READ), volumes=mounts(shared, read_only))
    assert code in (ERRNO_PERMISSION, ERRNO_NOT_CAPABLE, 44, 54)  # 44 noent, 54 notdir


async def test_without_a_folder_there_is_none(sandboxes: Sandboxes) -> None:
    code, _ = await sandboxes.result(opens("etc", 0, FD_READ))
    assert code == 8  # badf


async def test_a_folder_that_is_not_there(sandboxes: Sandboxes, shared: Path) -> None:
    desired = sandboxes.desired(wat.exits(0), volumes=mounts(shared / "gone", True))
    (problem,) = await sandboxes.backend.check(desired, ())
    assert problem.code == "volume"
    with pytest.raises(InvalidInput, match="is not a folder"):
        await sandboxes.backend.create(desired, silent)


async def test_a_failed_start_leaves_it_stopped(sandboxes: Sandboxes, shared: Path) -> None:
    desired = sandboxes.desired(wat.exits(0), volumes=mounts(shared, True))
    await sandboxes.backend.create(desired, silent)
    for entry in shared.iterdir():
        entry.unlink()
    shared.rmdir()
    with pytest.raises(Fault, match="is not a folder"):
        await sandboxes.backend.start(desired.ref, Attachments(), silent)
    assert (await sandboxes.backend.inspect(desired.ref)).phase is Phase.STOPPED


async def test_the_process_is_confined(sandboxes: Sandboxes) -> None:
    ref = await sandboxes.start(wat.SLEEP)
    pid = (await sandboxes.backend.inspect(ref)).pid
    assert pid is not None
    for thread in Path(f"/proc/{pid}/task").iterdir():
        seen = status_of(int(thread.name))
        assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
        assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        if ROOT:
            uids = set(seen["Uid"].split())
            assert len(uids) == 1
            assert int(uids.pop()) >= 0x7E00_0000
            assert seen["CapBnd"] == "0" * 16
    interfaces = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert [line for line in Path(f"/proc/{pid}/net/fib_trie").read_text().splitlines() if "127." in line] == []
    ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("net", "mnt", "ipc", "uts", "cgroup", "pid")}
    theirs = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ours}
    shared = {name for name in ours if ours[name] == theirs[name]}
    assert shared == (set() if ROOT else {"pid"})
    mounted = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    assert len(mounted) == 1
    assert " ro," in mounted[0]
    assert os.listdir(f"/proc/{pid}/root") == []
    descriptors = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert not any(target.startswith(("/tmp", "/root", "socket:")) for target in descriptors), descriptors
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "Max file size             0" in limits
    assert "Max core file size        0" in limits
    stats = await sandboxes.backend.stats(ref)
    assert 1 << 20 < (stats.memory_bytes or 0) < 200 << 20


async def test_a_log_does_not_fill_the_disk(sandboxes: Sandboxes) -> None:
    forever = wat.module(
        "(loop (call $say (i32.const 1) (i32.const 1024) (i32.const 4000)) br 0)",
        data=wat.text(1024, ("x" * 99 + "\n") * 40),
    )
    ref = await sandboxes.start(forever, options=WasmOptions(log_max_size=Size(1 << 20)))
    directory = sandboxes.context.resource_dir(ref)
    looks, deadline = 0, time.monotonic() + END_S
    while looks < 20 or not (directory / "log.1").exists():
        assert time.monotonic() < deadline, "it is never rotated"
        await asyncio.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):  # rotated while we look
            assert sum(path.stat().st_size for path in directory.glob("log*")) <= 1 << 20
            looks += 1
    assert len([line async for line in sandboxes.backend.logs(ref, tail=7, follow=False)]) == 7
    await sandboxes.backend.stop(ref, grace_s=1)


async def test_following_a_log_over_its_rotation(sandboxes: Sandboxes) -> None:
    counting = wat.module(
        """(local $n i32)
        (loop
          (i32.store8 (i32.const 1024) (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 100))))
          (i32.store8 (i32.const 1025) (i32.add (i32.const 48)
            (i32.rem_u (i32.div_u (local.get $n) (i32.const 10)) (i32.const 10))))
          (i32.store8 (i32.const 1026) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
          (call $say (i32.const 1) (i32.const 1024) (i32.const 1004))
          (call $sleep_ms (i64.const 2))
          (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 300))))
        (call $say (i32.const 2) (i32.const 2027) (i32.const 1))""",
        data=wat.text(1027, "x" * 1000 + "\n"),
    )
    ref = await sandboxes.start(counting, options=WasmOptions(log_max_size=Size(400 << 10)))  # rotated once
    seen: list[str] = []

    async def follow() -> None:
        async for line in sandboxes.backend.logs(ref, tail=None, follow=True):
            if line.stream == "stderr":
                return
            seen.append(line.text[:3])

    async with asyncio.timeout(END_S):
        await follow()
    assert seen == [f"{n:03}" for n in range(300)]
