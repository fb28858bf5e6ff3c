"""The walls around who only looks, tried from inside: what is refused by the kernel, and what still works."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ssh_sessions import PATIENCE_S, House, request, role
from vmtui.core.policy import Verb, changes_nothing
from vmtui.walls import landlock

LOOKERS = role("auditor", "view", "logs", "stats", "audit", "sessions", "recordings", "observe")
needs_landlock = pytest.mark.skipif(landlock.abi() < landlock.SCOPE_ABI, reason="this kernel's Landlock is older")
root_alone = pytest.mark.skipif(os.geteuid() != 0, reason="what root gives up")


def inside(script: str, *arguments: str | Path | int) -> list[str]:
    """What a process within the walls says."""
    begin = (
        "import os, sys, socket", "from pathlib import Path", "from vmtui.host.paths import Paths",
        "from vmtui.ssh import walls", "state = Path(sys.argv[1]) if len(sys.argv) > 1 else Path('/nowhere')",
        "assert walls.enter(Paths(state, state, state), [state / 'ssh', state / 'audit.log']) == []",
    )  # fmt: skip
    code = "\n".join((*begin, script))
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


TRY = """
def tries(name, what):
    try:
        what()
        print(name, "done")
    except OSError as error:
        print(name, error.strerror)
"""


@needs_landlock
def test_nothing_of_the_file_system_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    file.write_text("as it was")
    script = f"""{TRY}
path, folder = sys.argv[1] + "/state.db", sys.argv[1]
tries("write", lambda: open(path, "w"))
tries("append", lambda: open(path, "a"))
tries("truncate", lambda: os.truncate(path, 0))
tries("make", lambda: open(path + ".new", "x"))
tries("folder", lambda: os.mkdir(folder + "/new"))
tries("remove", lambda: os.unlink(path))
tries("rename", lambda: os.rename(path, path + ".old"))
tries("link", lambda: os.link(path, path + ".link"))
tries("symlink", lambda: os.symlink(path, folder + "/link"))
tries("socket", lambda: socket.socket(socket.AF_UNIX).bind(folder + "/sock"))
tries("read", lambda: open(path))
tries("null", lambda: open("/dev/null", "w"))
"""
    said = dict(line.split(maxsplit=1) for line in inside(script, tmp_path))
    assert (said.pop("read"), said.pop("null")) == ("done", "done")
    assert set(said.values()) <= {"Permission denied", "Operation not permitted", "Invalid cross-device link"}
    assert [path.name for path in tmp_path.iterdir()] == ["state.db"]
    assert file.read_text() == "as it was"


@needs_landlock
def test_no_process_outside_can_be_signalled_or_traced(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        script = f"""{TRY}
import ctypes, signal
pid = int(sys.argv[2])
tries("kill", lambda: os.kill(pid, signal.SIGTERM))
tries("pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGTERM))
tries("memory", lambda: open(f"/proc/{{pid}}/mem", "r+b"))
tries("environ", lambda: open(f"/proc/{{pid}}/environ"))
libc = ctypes.CDLL(None, use_errno=True)
print("trace", libc.ptrace(16, pid, 0, 0), ctypes.get_errno())
child = os.fork() or os._exit(os.system("exec sleep 0"))
tries("own", lambda: os.kill(child, 0))
"""
        said = dict(line.split(maxsplit=1) for line in inside(script, tmp_path, other.pid))
        other.kill()
    assert said.pop("own") == "done"
    assert said.pop("trace") == "-1 1"
    assert set(said.values()) <= {"Permission denied", "Operation not permitted"}


@needs_landlock
@root_alone
def test_of_what_only_root_may_read_nothing_is_seen_but_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "ssh").mkdir()
    (tmp_path / "ssh/host_ed25519").write_text("the server's key")
    (tmp_path / "audit.log").write_text("who did what")
    (tmp_path / "state.db").write_text("what should be")
    script = f"""{TRY}
tries("shadow", lambda: open("/etc/shadow"))
tries("home", lambda: os.listdir("/root"))
tries("disk", lambda: open("/dev/vda", "rb"))
tries("init", lambda: open("/proc/1/environ"))
tries("key", lambda: open(state / "ssh/host_ed25519"))
tries("mount", lambda: os.system("umount " + str(state / "ssh")) and os.listdir(state / "ssh") or os.stat("/none"))
print("audit", repr(open(state / "audit.log").read()))
print("state", open(state / "state.db").read())
"""
    said = dict(line.split(maxsplit=1) for line in inside(script, tmp_path))
    assert said.pop("audit") == "''"
    assert said.pop("state") == "what should be"
    assert set(said.values()) == {"Permission denied", "No such file or directory"}
    assert (tmp_path / "ssh/host_ed25519").exists()


@root_alone
def test_no_change_of_the_network_mounts_or_users() -> None:
    script = f"""{TRY}
import subprocess
print("link", subprocess.run(["ip", "link", "add", "walled", "type", "dummy"], capture_output=True).returncode)
print("nft", subprocess.run(["nft", "add", "table", "inet", "walled"], capture_output=True).returncode != 0)
print("mount", subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode != 0)
print("unshare", subprocess.run(["unshare", "-r", "true"], capture_output=True).returncode != 0)
tries("uid", lambda: os.setuid(12345))
tries("tcp", lambda: socket.create_connection(("127.0.0.1", 9), 1))
tries("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tries("chroot", lambda: os.chroot("/tmp"))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0])
"""
    *said, capabilities = inside(script)
    assert said[:4] == ["link 2", "nft True", "mount True", "unshare True"]
    assert {line.split(maxsplit=1)[1] for line in said[4:]} == {"Operation not permitted", "Permission denied"}
    assert int(capabilities, 16) == 1 << 2


def status_of(pid: int) -> dict[str, str]:
    return dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{pid}/status").read_text()))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("who", ["viewer", "auditor"])
async def test_who_only_looks_is_behind_them_and_sees_everything(house: House, who: str) -> None:
    looker = LOOKERS if who == "auditor" else who
    client, session = await house.panel(role=looker)
    status = status_of(house.pid(session))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for argv in (("ls",), ("inspect", "web"), ("logs", "web"), ("stats",), ("events",), ("backends",)):
        ours, theirs = await house.run(*argv), await house.run(*argv, role=looker)
        assert theirs[0] == ours[0] == 0
        assert len(theirs[1].splitlines()) == len(ours[1].splitlines())
    assert "web" in client.text


@pytest.mark.asyncio(loop_scope="module")
async def test_who_changes_things_is_not_and_what_they_start_has_its_signals(house: House) -> None:
    _, session = await house.panel(role="operator")
    status = status_of(house.pid(session))
    assert status["NoNewPrivs"] == "0"
    assert int(status["SigIgn"], 16) & (1 << 19 | 1 << 20 | 1 << 21) == 0  # TSTP, TTIN, TTOU


@root_alone
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("verbs", [("*",), ("view", "logs", "stats")])
async def test_a_role_with_a_user_is_that_user_with_its_own_workspace(house: House, verbs: tuple[str, ...]) -> None:
    client, session = await house.begin("plan", role=role("theirs", *verbs, "create", user="nobody"), stdin=None)
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may not wait for its input
            while (status := status_of(house.pid(session)))["Uid"].split()[0] == "0":  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # no event tells of another process's identity
            assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65534"}
            assert "0" not in status["Groups"].split()
        session.feed(b'name = "theirs"')
        session.eof()
        assert await session.wait() == 71
    assert b"/nonexistent" in client.err


def test_the_roles_that_are_walled_in_are_those_that_change_nothing() -> None:
    assert changes_nothing(request(role="viewer").role)
    for verb in (Verb.STOP, Verb.CONSOLE, Verb.HOST, Verb.DRIVE, Verb.APPROVE, Verb.FILES, Verb.CONNECT):
        assert not changes_nothing(role("more", "view", verb))
