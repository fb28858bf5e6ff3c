"""Which hints are commands, and what running one does."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.engine import repair
from vmtui.host import trace


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These are in PATH, and also English words."""
    for name in ("modprobe", "apt-get", "write", "install", "wait", "at", "open", "sudo", "vmtui", "usermod", "mkdir"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.parametrize(
    "hint",
    [
        "modprobe -a nf_tables nft_masq nft_nat nft_fib_inet",
        "mkdir -p '/srv/two words'",
        "ls -ld /var/lib/x*",
        "modprobe kvm # who else serves on it",
        "modprobe rule 'a, b of the'",
        f"{sys.executable} -m pip --version",
    ],
)
def test_a_command_is_run_as_it_stands(hint: str) -> None:
    assert repair.command_of(hint) in (hint, hint.partition(" #")[0])


def test_apt_does_not_ask_again() -> None:
    shown = "DEBIAN_FRONTEND=noninteractive apt-get -y install skopeo"
    assert repair.command_of("apt-get install skopeo") == shown
    assert repair.command_of("apt-get -y install skopeo") == "apt-get -y install skopeo"


@pytest.mark.parametrize(
    "hint",
    [
        "",
        "write the full name",
        'write size = "2G"',
        "install it first",
        "wait: it goes by itself",
        "at most 5",
        "open it again: what you changed is not written",
        "usermod -aG kvm $USER, and log in again",
        'set userns = "host" in its [oci] table',
        "a kernel of 5.19 or newer",
        "sudo vmtui doctor",
        "vmtui ls",
        "modprobe NAME",
        "mv -t /var/tmp x*; apply your profiles again: what exists is found on the host",
        "no-such-tool --now",
        "modprobe 'unbalanced",
        "modprobe x\nrm -rf /",
        "modprobe \x1b[2J",
        "./modprobe x",
        "modprobe $(reboot)",
        'modprobe "`reboot`"',
        "modprobe x | sh",
        "modprobe x > /etc/passwd",
        "/etc/passwd x",
    ],
)
def test_a_sentence_or_what_needs_a_person_is_not(hint: str) -> None:
    assert repair.command_of(hint) is None


@given(st.text())
def test_no_hint_breaks_it(hint: str) -> None:
    repair.command_of(hint)


async def test_its_output_comes_line_by_line_while_it_runs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    then = "printf 'two\\rthr\\303\\266e' >&2; exit 3"
    heard: list[str] = []
    first = asyncio.Event()

    def hear(line: str) -> None:
        heard.append(line)
        first.set()

    task = asyncio.create_task(repair.run(f"echo one; read go < {tmp_path}/go; {then}", hear))
    async with asyncio.timeout(60):
        await first.wait()
    assert heard == ["one"]
    await asyncio.to_thread((tmp_path / "go").write_text, "go")
    assert await task == 3
    assert heard == ["one", "two", "thröe"]
    act = trace.acts()[-1]
    assert (act.argv[:2], act.code) == (("/bin/sh", "-c"), 3)


async def test_cancelled_it_ends_with_all_that_it_started(tmp_path: Path) -> None:
    task = asyncio.create_task(repair.run(f"sleep 300 & echo $! > {tmp_path}/pid; wait", lambda _: None))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    pid = int((tmp_path / "pid").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone(pid)


@pytest.mark.parametrize("turns", range(1, 8))
async def test_cancelled_before_asyncio_has_it_in_hand_too(tmp_path: Path, turns: int) -> None:
    task = asyncio.create_task(repair.run(f"sleep 300 & echo $! > {tmp_path}/pid; wait", lambda _: None))
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - the command goes on, and the loop does not
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if (tmp_path / "pid").exists():
        await _gone(int((tmp_path / "pid").read_text()))


async def _gone(pid: int) -> None:
    for _ in range(1000):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # before it was opened, or between that and its being read
            return
        if stat.rpartition(")")[2].split()[0] == "Z":
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the child is still there")
