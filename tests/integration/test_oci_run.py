"""Containers from their image to their end: what runs, what it says, what it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import Yard, busybox_image
from vmtui.backends.oci.options import OciOptions
from vmtui.backends.oci.places import Places
from vmtui.core.backend import ExecRequest
from vmtui.core.errors import Fault, InvalidInput, MissingCapability, NotFound, NotPermitted, OperationFailed
from vmtui.core.lifecycle import Phase
from vmtui.core.units import Mount, Size
from vmtui.host.process import run
from vmtui.runtime.cgroups import hierarchies, mode

pytestmark = pytest.mark.real


async def test_the_command_environment_user_and_folder(yard: Yard, tmp_path: Path) -> None:
    yard.image = busybox_image(
        tmp_path / "image",
        Env=["PATH=/bin", "FROM_IMAGE=yes", "BOTH=image", "EMPTY="],
        User="web",
        WorkingDir="/made/when/missing",
        Entrypoint=["/bin/sh", "-c"],
        Cmd=["id; pwd; env"],
    )
    code, said = await yard.run(environment={"BOTH": "spec", "QUOTE": "a 'b' \"c\"\n\\d"})
    assert code == 0
    assert "uid=33(web) gid=44(www) groups=60(extra)" in said
    assert "\n/made/when/missing\n" in said
    for line in ("FROM_IMAGE=yes", "BOTH=spec", "EMPTY=", "HOME=/srv/web", "HOSTNAME=one", "QUOTE=a 'b' \"c\"", "\\d"):
        assert f"{line}\n" in said
    _, said = await yard.run(command=("echo it is $FROM_IMAGE",), user="root", hostname="named")
    assert said == "it is yes\n"
    _, said = await yard.run(entrypoint=("/bin/hostname",), hostname="named")
    assert said == "named\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("1000", "uid=1000 gid=0(root)"),
        ("web:staff", "uid=33(web) gid=50(staff)"),
        ("7:8", "uid=7 gid=8"),
        ("33", "uid=33(web) gid=44(www) groups=60(extra)"),
        ("root", "uid=0(root) gid=0(root) groups=50(staff)"),
    ],
)
async def test_users(yard: Yard, user: str, expected: str) -> None:
    code, said = await yard.run("id", user=user)
    assert (code, said.strip()) == (0, expected)


@pytest.mark.parametrize("user", ["nobody-here", "root:nobody-here", "65536", "99999999999999999999"])
async def test_users_that_cannot_be(yard: Yard, user: str) -> None:
    ref = await yard.create(yard.want("true", user=user))
    with pytest.raises(InvalidInput):
        await yard.start(ref)
    assert (await yard.backend.inspect(ref)).phase is Phase.STOPPED
    assert not yard.context.runtime_dir(ref).exists()


async def test_it_is_as_usual_under_a_narrow_umask(yard: Yard) -> None:
    before = os.umask(0o077)
    try:
        script = "stat -c '%n %a' / /data /etc/hosts; cat /etc/resolv.conf >/dev/null && ls / >/dev/null && echo seen"
        code, said = await yard.run(script, user="web", volumes=(Mount.parse("kept:/data"),))
    finally:
        os.umask(before)
    assert (code, said.split("\n")[:4]) == (0, ["/ 755", "/data 755", "/etc/hosts 644", "seen"])


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$; sleep 5", 0)])
async def test_exit_codes(yard: Yard, script: str, code: int) -> None:
    ref = await yard.up(script if "kill" not in script else "exec sleep 60")
    if "kill" in script:
        os.kill((await yard.backend.inspect(ref)).pid or 0, signal.SIGKILL)
        code = 137
    status = await yard.comes_to(ref, Phase.EXITED)
    assert status.exit is not None
    assert (status.exit.code, status.exit.reason) == (code, "")
    reaped = yard.context.reaped(ref)
    for _ in range(3000):
        if reaped.exists() and reaped.read_text():
            break
        await asyncio.sleep(0.02)
    assert reaped.read_text() == f"{ref} {yard.context.paths.state.parent}"


async def test_changes_survive_a_restart_and_not_a_delete(yard: Yard) -> None:
    ref = await yard.up("cat /kept || true; echo written > /kept; rm /etc/group; echo done; exec sleep 600")
    await yard.says(ref, "done")
    await yard.backend.stop(ref, grace_s=0)
    assert (await yard.backend.inspect(ref)).phase is Phase.STOPPED
    await yard.start(ref)
    await yard.says(ref, "written")
    assert (await yard.exec(ref, "ls", "/etc/group"))[0] != 0
    await yard.backend.delete(ref, purge=False)
    code, said = await yard.run("cat /etc/group | wc -l")
    assert (code, said) == (0, "4\n")


async def test_the_stop_signal_is_the_one_asked_for(yard: Yard, tmp_path: Path) -> None:
    trap = "trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    ref = await yard.up(trap, stop_signal="SIGUSR1")
    await yard.says(ref, "ready")
    await yard.backend.stop(ref, grace_s=10)
    assert "got it" in [line.text for line in await yard.log(ref)]
    yard.image = busybox_image(tmp_path / "image", StopSignal="USR1")
    ref = await yard.up(trap, name="two")
    await yard.says(ref, "ready")
    await yard.backend.stop(ref, grace_s=10)
    assert "got it" in [line.text for line in await yard.log(ref)]


async def test_what_ignores_its_signal_is_killed_after_the_grace(yard: Yard) -> None:
    ref = await yard.up("trap '' TERM; echo ready; while :; do sleep 1; done")
    await yard.says(ref, "ready")
    began = asyncio.get_running_loop().time()
    await yard.backend.stop(ref, grace_s=0.5)
    assert 0.4 < asyncio.get_running_loop().time() - began < 60
    assert (await yard.backend.inspect(ref)).phase is Phase.STOPPED


async def test_streams_and_long_lines_in_the_log(yard: Yard) -> None:
    ref = await yard.up(
        "echo out; echo err >&2; printf 'no newline'; printf '%030000d\\n' 7; printf '\\033[2Jx\\0y\\377z\\n'"
    )
    await yard.comes_to(ref, Phase.EXITED)
    lines = await yard.log(ref)
    texts = [line.text for line in lines]
    assert "out" in texts
    assert [line.text for line in lines if line.stream == "stderr"] == ["err"]
    assert f"no newline{7:030000d}" in texts
    assert texts[-1] == "\x1b[2Jx\0y�z"


async def test_a_flood_is_bounded_and_followed(yard: Yard) -> None:
    size = 256 << 10
    ref = await yard.up(
        "yes 0123456789012345678901234567890123456789 | head -n 200000; echo end", log_max_size=Size(size)
    )
    last = ""
    async with asyncio.timeout(120):
        async with aclosing(yard.backend.logs(ref, tail=10, follow=True)) as lines:  # type: ignore[type-var]
            async for line in lines:
                last = line.text
                if last == "end":
                    break
    await yard.comes_to(ref, Phase.EXITED)
    directory = yard.context.resource_dir(ref)
    assert sum(file.stat().st_size for file in directory.glob("log*")) <= 2 * size
    assert [line.text for line in await yard.log(ref, tail=2)] == ["0123456789012345678901234567890123456789", "end"]
    for _ in range(4):  # restarts do not pile up either
        await yard.start(ref)
        await yard.comes_to(ref, Phase.EXITED)
    assert sum(file.stat().st_size for file in directory.glob("log*")) <= 3 * size


@pytest.mark.parametrize("tty", [False, True])
async def test_a_command_that_is_cancelled_while_it_starts_ends(
    yard: Yard, tty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run inside before asyncio has its runtime in hand."""
    ref = await yard.up("exec sleep 600")
    spawn = asyncio.create_subprocess_exec

    async def slowly(*argv: str, **more: Any) -> asyncio.subprocess.Process:
        process = await spawn(*argv, **more)
        if "exec" in argv:
            await asyncio.sleep(2)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    starting = asyncio.create_task(yard.backend.exec(ref, ExecRequest(argv=("sleep", "601"), tty=tty)))
    await asyncio.sleep(1.5)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    monkeypatch.undo()
    assert b"601" not in (await yard.exec(ref, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))[1]


async def test_exec_with_pipes(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    data = os.urandom(300_000)
    assert await yard.exec(ref, "cat", stdin=data) == (0, data)
    assert await yard.exec(ref, "sh", "-c", "echo out; echo err >&2; exit 9") in (
        (9, b"out\nerr\n"),
        (9, b"err\nout\n"),
    )
    assert (await yard.exec(ref, "no-such-program"))[0] == 127
    assert (await yard.exec(ref, "/etc/passwd"))[0] == 126
    assert await yard.exec(ref, "id", "-u", user="web") == (0, b"33\n")
    assert await yard.exec(ref, "pwd", working_dir="/srv/web") == (0, b"/srv/web\n")
    assert await yard.exec(ref, "sh", "-c", "kill -9 $$") == (137, b"")
    assert (await yard.exec(ref, "sh", "-c", "echo $A$HOSTNAME", environment=(("A", "b "),)))[1] == b"b one\n"
    with pytest.raises(InvalidInput):
        await yard.exec(ref, "true", environment=(("A=B", "c"),))
    assert list(Places(yard.context, ref).execs.iterdir()) == []


async def test_exec_on_a_terminal_with_resize(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    script = 'tty; stty size; while [ "$(stty size)" = "31 99" ]; do sleep 0.05; done; stty size; read line; exit 3'
    session = await yard.backend.exec(ref, ExecRequest(argv=("sh", "-c", script), tty=True, rows=31, columns=99))
    try:
        seen = b""

        async def until(text: bytes) -> None:
            nonlocal seen
            while text not in seen:
                item = await session.read()
                assert item is not None, seen
                seen += item[1]

        async with asyncio.timeout(90):
            await until(b"/dev/pts/0\r\n31 99\r\n")
            await session.resize(50, 120)
            await until(b"50 120\r\n")
            await session.write(b"typed\r")
            while await session.read() is not None:
                pass
            assert await session.wait() == 3
    finally:
        await session.aclose()


async def test_closing_an_exec_ends_all_of_it(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    for tty in (False, True):
        script = "sleep 777 & sleep 778 & echo started; wait"
        session = await yard.backend.exec(ref, ExecRequest(argv=("sh", "-c", script), tty=tty))
        assert await session.read() is not None
        assert len(Places(yard.context, ref).cgroup.pids()) == 4
        await session.aclose()
        for _ in range(3000):
            if len(Places(yard.context, ref).cgroup.pids()) == 1:
                break
            await asyncio.sleep(0.02)
        assert len(Places(yard.context, ref).cgroup.pids()) == 1


async def test_the_console_of_a_terminal(yard: Yard) -> None:
    ref = await yard.up(tty=True)
    terminal = await yard.backend.console(ref)
    try:
        await terminal.resize(17, 71)
        # conmon takes the size when it comes to it
        await terminal.write(b'until [ "$(stty size)" = "17 71" ]; do sleep 0.1; done; stty size\r')
        seen = b""
        async with asyncio.timeout(90):
            while b"17 71\r\n" not in seen:
                seen += await terminal.read()
            await terminal.write(b"exit 4\r")
            while data := await terminal.read():
                seen += data
    finally:
        await terminal.aclose()
    status = await yard.comes_to(ref, Phase.EXITED)
    assert status.exit is not None
    assert status.exit.code == 4


async def test_the_console_without_a_terminal_is_what_it_writes(yard: Yard) -> None:
    ref = await yard.up("while :; do echo out; echo err >&2; sleep 0.05; done")
    terminal = await yard.backend.console(ref)
    try:
        seen = b""
        async with asyncio.timeout(90):
            while b"out\n" not in seen or b"err\n" not in seen:
                seen += await terminal.read()
        with pytest.raises(ConnectionError, match="tty = true"):
            await terminal.write(b"x")
    finally:
        await terminal.aclose()


async def test_a_console_that_nobody_reads_does_not_stop_the_container(yard: Yard) -> None:
    ref = await yard.up("yes | head -n 3000000; echo end; exec sleep 600", log_max_size=Size(64 << 10))
    terminal = await yard.backend.console(ref)
    try:
        await yard.says(ref, "end", 300)
    finally:
        await terminal.aclose()


async def test_named_volumes_and_bind_mounts(yard: Yard, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "given").write_text("from the host\n")
    (tmp_path / "one-file").write_text("alone\n")
    os.chown(folder / "given", 0, 0)
    (folder / "given").chmod(0o600)
    mounts = (
        Mount(str(folder), "/shared"),
        Mount(str(folder), "/read-only", read_only=True),
        Mount(str(tmp_path / "one-file"), "/etc/one-file", read_only=True),
        Mount("kept", "/srv/web"),
    )
    script = """
        cat /shared/given /etc/one-file
        echo back > /shared/back; chown 33:44 /shared/back
        echo x > /read-only/no || echo refused
        echo x > /etc/one-file || echo refused
        stat -c '%u %g %a' /srv/web; echo data > /srv/web/file
    """
    code, said = await yard.run(script, volumes=mounts)
    assert code == 0
    assert "from the host\nalone\n" in said
    assert said.count("refused") == 2
    assert "33 44 750\n" in said, "a new volume gets the owner and mode of what it covers"
    back = (folder / "back").stat()
    assert (back.st_uid, back.st_gid, (folder / "back").read_text()) == (33, 44, "back\n")
    assert await yard.run("cat /v/file", name="other", user="web", volumes=(Mount("kept", "/v"),)) == (0, "data\n")
    data = yard.context.paths.state / "volumes" / "yard" / "kept" / "data"
    assert (data / "file").read_text() == "data\n"
    ref = await yard.create(yard.want("true", name="first", volumes=(Mount("kept", "/v"),)))
    other = await yard.create(yard.want("true", name="second", volumes=(Mount("kept", "/v"),)))
    await yard.backend.delete(ref, purge=True)
    assert data.exists(), "another container uses it"
    await yard.backend.delete(other, purge=True)
    assert not data.exists()


async def test_a_missing_bind_source_is_told_before_anything_is_made(yard: Yard, tmp_path: Path) -> None:
    mount = Mount(str(tmp_path / "gone"), "/data")
    desired = yard.want("true", volumes=(mount,))
    problems = await yard.backend.check(desired, ())
    assert [problem.code for problem in problems] == ["missing-source"]
    with pytest.raises(NotFound, match="gone"):
        await yard.backend.create(desired, print)
    assert list(await yard.backend.scan()) == []


async def test_tmpfs_and_a_read_only_root(yard: Yard) -> None:
    script = "exec 2>&1; echo x > /no; echo y > /run/yes && cat /run/yes; stat -c %a /run; "
    script += "dd if=/dev/zero of=/run/big bs=1M count=2"
    code, said = await yard.run(script, read_only=True, tmpfs=("/run:size=1m,mode=755", "/tmp"))
    assert code == 1
    assert "/no: Read-only file system\ny\n755\n" in said
    assert "No space left" in said


async def test_it_is_found_after_the_cache_was_emptied(yard: Yard) -> None:
    ref = await yard.create(yard.want("echo again"))
    shutil.rmtree(yard.context.paths.cache)
    await yard.start(ref)
    await yard.says(ref, "again")


async def test_facts(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    status = await yard.backend.inspect(ref)
    assert status.fact("image") == yard.image
    assert status.fact("digest").startswith("sha256:")
    assert status.fact("runtime").startswith("runc (") or status.fact("runtime").startswith("crun (")
    assert status.fact("user ids").startswith("0-65535 → ")
    config = json.loads((yard.context.runtime_dir(ref) / "config.json").read_bytes())
    assert yard.context.owned(config["annotations"]["org.vmtui.mark"]) == ref
    assert config["annotations"]["org.vmtui.spec-hash"] == status.spec_hash


async def test_it_is_paused_and_not_entered(yard: Yard) -> None:
    ref = await yard.up("while :; do date +%N; sleep 0.02; done")
    await yard.says(ref, "")
    await yard.backend.pause(ref)
    before, deadline = -1, time.monotonic() + 60
    while (count := len(await yard.log(ref))) != before:  # conmon writes what the container had said by then
        assert time.monotonic() < deadline, "it goes on"
        before = count
        await asyncio.sleep(0.3)
    with pytest.raises(NotPermitted):
        await yard.exec(ref, "true")
    await yard.backend.kill(ref)
    status = await yard.backend.inspect(ref)
    assert status.exit is not None
    assert (status.phase, status.exit.code) == (Phase.EXITED, 137)


async def test_the_host_root_is_used_only_if_asked(yard: Yard) -> None:
    ref = await yard.create(yard.want("cat /proc/self/uid_map; exec sleep 600", options=OciOptions(userns="host")))
    await yard.start(ref)
    await yard.says(ref, "4294967295")
    status = await yard.backend.inspect(ref)
    assert status.fact("user ids") == "the host's"
    assert status.problems == ()
    assert (await yard.exec(ref, "id", "-u")) == (0, b"0\n")


async def test_crun_is_refused_where_limits_would_not_hold(yard: Yard) -> None:
    if mode(hierarchies()) != "hybrid":
        pytest.skip("crun works here")
    desired = yard.want("true", options=OciOptions(runtime="crun"))
    assert [problem.code for problem in await yard.backend.check(desired, ())] == ["missing-capability"]
    ref = await yard.create(desired)
    with pytest.raises(MissingCapability, match="crun"):
        await yard.start(ref)


@pytest.mark.parametrize(
    ("command", "why"), [("/no/such/program", "(?i)no such file"), ("/etc/passwd", "(?i)permission denied")]
)
async def test_a_program_that_is_not_there(yard: Yard, command: str, why: str) -> None:
    ref = await yard.create(yard.want(command=(command,)))
    with pytest.raises(Fault, match=why):
        await yard.start(ref)
    assert (await yard.backend.inspect(ref)).phase is Phase.STOPPED
    assert not yard.context.runtime_dir(ref).exists()


async def test_fifty_at_once(yard: Yard) -> None:
    refs = [await yard.create(yard.want("echo up; exec sleep 600", name=f"c{number}")) for number in range(50)]
    await asyncio.gather(*(yard.start(ref) for ref in refs))
    statuses = await yard.backend.scan()
    assert {status.phase for status in statuses} == {Phase.RUNNING}
    assert len({status.fact("user ids") for status in statuses}) == 50
    await asyncio.gather(*(yard.backend.delete(ref, purge=True) for ref in refs))


@pytest.fixture
async def ramfs(tmp_path: Path) -> AsyncIterator[Path]:
    """A file system whose mounts cannot be mapped (fs/ramfs lacks FS_ALLOW_IDMAP)."""
    folder = tmp_path / "ram"
    folder.mkdir()
    await run(["mount", "-t", "ramfs", "ramfs", folder])
    yield folder
    await run(["umount", folder])


async def test_where_layers_cannot_be_mapped_it_runs_on_the_host_ids_and_says_so(yard: Yard, ramfs: Path) -> None:
    other = Yard(yard.root, yard.image, ramfs / "cache")
    try:
        ref = await other.up("cat /proc/self/uid_map; exec sleep 600")
        await other.says(ref, "4294967295")
        status = await other.backend.inspect(ref)
        assert status.fact("user ids") == "the host's"
        (problem,) = status.problems
        assert problem.code == "no-user-namespace"
        assert "cannot map ids" in problem.message
        ref = await other.create(other.want("true", name="strict", options=OciOptions(userns="private")))
        with pytest.raises(Fault, match="cannot map ids"):
            await other.start(ref)
    finally:
        await other.clear()


async def test_a_folder_that_cannot_be_mapped_is_refused(yard: Yard, ramfs: Path) -> None:
    mount = Mount(str(ramfs), "/data")
    ref = await yard.create(yard.want("true", volumes=(mount,)))
    with pytest.raises(OperationFailed, match="ram") as refused:
        await yard.start(ref)
    assert "userns" in refused.value.hint
    ref = await yard.create(yard.want("exit 5", name="two", volumes=(mount,), options=OciOptions(userns="host")))
    await yard.start(ref)
    await yard.comes_to(ref, Phase.EXITED)
