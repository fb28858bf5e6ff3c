"""What is recorded of commands and system calls, on the real functions that make them."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.host import trace
from vmtui.host.faults import CommandFailed
from vmtui.host.process import ProcessId, run
from vmtui.host.rtnetlink import RTM_GETLINK, Rtnetlink
from vmtui.runtime.cgroups import Cgroup, Hierarchy
from vmtui.runtime.mount_namespace import MountNamespace


@pytest.fixture
def since() -> int:
    """The number of the last act before the test."""
    return max((act.number for act in trace.acts()), default=0)


async def test_a_command_is_recorded_with_all_that_a_person_asks_about(since: int, tmp_path: Path) -> None:
    script = "cat; echo oops >&2; exit 3"
    with trace.doing("create t/vm/x"):
        await run(
            ["sh", "-c", script], stdin=b"add rule", show_stdin=True, check=False, env={"LC_ALL": "C.x"}, cwd=tmp_path
        )
    (act,) = trace.acts(after=since)
    assert act.argv == ("sh", "-c", script)
    assert (act.way, act.doing, act.code, act.failed, act.reads) == ("command", "create t/vm/x", 3, False, False)
    assert (act.stdin, act.stdin_bytes, act.stderr) == (b"add rule", 8, b"oops\n")
    assert act.environment == ("LC_ALL=C.x",)
    assert act.cwd == str(tmp_path)
    assert act.elapsed_s is not None
    assert 0 < act.elapsed_s < 60
    assert act.line == f"env LC_ALL=C.x sh -c '{script}'"
    assert not act.equivalent


async def test_of_stdin_only_the_size_is_kept_unless_it_may_be_shown(since: int) -> None:
    await run(["cat"], stdin=b"x" * 100)
    await run(["cat"], stdin=b"x" * (trace.TEXT_BYTES + 1), show_stdin=True)
    assert [(act.stdin, act.stdin_bytes) for act in trace.acts(after=since)] == [
        (None, 100),
        (None, trace.TEXT_BYTES + 1),
    ]


async def test_a_time_out_a_failure_and_a_cancellation_are_told(since: int) -> None:
    with pytest.raises(CommandFailed):
        await run(["false"])
    with pytest.raises(CommandFailed):
        await run(["sleep", "9"], timeout=0.05)
    task = asyncio.create_task(run(["sleep", "9"]))
    await asyncio.sleep(0.05)
    assert trace.acts(after=since)[-1].elapsed_s is None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    with pytest.raises(OSError, match="No such file"):
        await run(["/nowhere/at/all"])
    failed, late, cancelled, absent = trace.acts(after=since)
    assert (failed.code, failed.error) == (1, "")
    assert "did not end within" in late.error
    assert cancelled.error == "CancelledError"
    assert "No such file" in absent.error
    assert all(act.failed and act.elapsed_s is not None for act in (failed, late, cancelled, absent))


async def test_reads_are_marked_and_push_out_no_change(since: int) -> None:
    await run(["true", "kept"])
    with trace.doing("scan", reads=True):
        await run(["true"])
        with trace.doing("inspect"):
            await asyncio.create_task(run(["true"]))
    await run(["true"], reads=True)
    with Rtnetlink() as kernel:
        kernel.dump(RTM_GETLINK)
    assert [act.reads for act in trace.acts(after=since)] == [False, True, True, True, True]
    assert trace.acts(after=since)[-1].line == "ip -d link show"
    for _ in range(trace.READS_KEPT + 1):
        trace.begin(trace.Way.COMMAND, ("true",), reads=True)
    assert [act.argv for act in trace.acts(after=since) if not act.reads] == [("true", "kept")]


async def test_system_calls_are_told_as_commands_that_do_the_same(since: int, tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec("sleep", "60")
    identity = ProcessId.of(child.pid)
    assert identity is not None
    identity.signal(signal.SIGKILL)
    await child.wait()
    group = tmp_path / "box"
    group.mkdir()
    (group / "cgroup.freeze").write_text("0\n")
    (group / "cgroup.events").write_text("frozen 1\n")
    await Cgroup("box", (Hierarchy(tmp_path, 2, frozenset()),)).freeze(True)
    killed, frozen = trace.acts(after=since)
    assert killed.line == f"kill -s KILL {child.pid}"
    assert frozen.line == f"sh -c 'echo 1 > {group}/cgroup.freeze'"
    assert killed.equivalent
    assert frozen.equivalent


async def test_work_in_a_thread_of_its_own_is_for_the_same_thing(since: int) -> None:
    class Plain(MountNamespace):
        def _enter(self) -> None:
            """Without a namespace: no root is needed to see where its work is counted."""
            trace.begin(trace.Way.SYSCALL, ("unshare(CLONE_NEWNS)",)).ended()

    with trace.doing("start t/container/x"), Plain() as thread:
        await thread.run(lambda: trace.begin(trace.Way.MOUNT, ("mount",)).ended())
    assert [act.doing for act in trace.acts(after=since)] == ["start t/container/x"] * 2


def test_listeners_hear_of_beginning_and_end_and_cannot_break_who_acts(since: int) -> None:
    heard: list[tuple[int, bool]] = []

    def bad(act: trace.Act) -> None:
        raise RuntimeError(act)

    ends = [trace.subscribe(bad), trace.subscribe(lambda act: heard.append((act.number, act.elapsed_s is None)))]
    with trace.begin(trace.Way.SYSCALL, ("sync()",)) as act:
        pass
    for end in ends:
        end()
    trace.begin(trace.Way.SYSCALL, ("sync()",)).ended()
    assert heard == [(act.number, True), (act.number, False)]
    assert act.line == "sync()"


def test_what_cannot_be_recorded_does_not_reach_who_acts(since: int) -> None:
    class Bad:
        def __str__(self) -> str:
            raise ValueError("no")

    act = trace.begin(trace.Way.COMMAND, ("x", Bad()), environment={"A": "b"})
    act.ended(0)
    assert act.failed
    assert trace.acts(after=since) == []


def test_it_is_bounded_and_says_what_it_forgot(since: int) -> None:
    before = trace.forgotten()
    text = b"x" * trace.TEXT_BYTES
    for _ in range(trace.CHANGES_KEPT + 10):
        trace.begin(trace.Way.COMMAND, ("nft",), stdin=text, show_stdin=True).ended(0)
    kept = trace.acts(after=since)
    assert len(kept) == trace.CHANGES_KEPT
    assert trace.forgotten() >= before + 10
    assert sum(len(act.stdin or b"") for act in kept) <= trace.TEXTS_BYTES
    assert kept[-1].stdin == text
    (long,) = (trace.begin(trace.Way.COMMAND, ["a", "b" * 1_000_000, "c"]),)
    assert sum(map(len, long.argv)) < 2 * trace.ARGV_BYTES


def test_it_can_be_read_while_threads_act() -> None:
    stop = threading.Event()

    def act() -> None:
        while not stop.is_set():
            trace.begin(trace.Way.COMMAND, ("true",)).ended(0)

    threads = [threading.Thread(target=act) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            numbers = [each.number for each in trace.acts()]
            assert numbers == sorted(set(numbers))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["x", "--password", "hunter2", "--verbose"], "x --password '***' --verbose"),
        (["x", "--password=hunter2"], "x '--password=***'"),
        (["qemu", "-append", "console=ttyS0 db_password=hunter2 quiet"], "console=ttyS0 db_password=*** quiet"),
        (["skopeo", "--src-creds", "ann:hunter2"], "--src-creds '***'"),
        (["curl", "https://ann:hunter2@host/x"], "https://ann:***@host/x"),
        (["x", '{"api_key": "hunter2", "name": "a"}'], '{"api_key": "***", "name": "a"}'),
        (["env", "GITHUB_TOKEN=hunter2", "A=b"], "GITHUB_TOKEN=***' A=b"),
    ],
)
def test_secrets_are_masked(argv: list[str], shown: str) -> None:
    act = trace.begin(trace.Way.COMMAND, argv, environment={"REGISTRY_PASSWORD": "hunter2"})
    assert "hunter2" not in act.line
    assert "hunter2" not in repr(act)
    assert shown in act.line
    assert "REGISTRY_PASSWORD=***" in act.line


@pytest.mark.parametrize("text", ["docker://reg/secret-service:1.2", "--authfile=/run/auth.json", "a=b", "tap0"])
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert trace.mask(text) == text


@given(st.lists(st.text(max_size=50), max_size=10))
def test_masking_never_fails(words: list[str]) -> None:
    assert len(trace.masked(words)) == len(words)


def test_it_costs_little_when_nobody_looks(since: int) -> None:
    code = (
        "import time, timeit; from vmtui.host import trace\n"
        "def act():\n"
        "    with trace.begin(trace.Way.NETLINK, lambda: ('ip', 'link'), reads=True): pass\n"
        "print(min(timeit.repeat(act, timer=time.process_time, number=1000, repeat=5)) / 1000 < 50e-6)\n"
    )
    done = asyncio.run(run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]))
    assert done.stdout.strip() == b"True"
