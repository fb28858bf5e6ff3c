"""The demo as its reader runs it, `vmtui --profile profiles/dev.toml`, on a machine where others have things too."""

from __future__ import annotations

import json
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import ROOT, Machine, Site

pytestmark = pytest.mark.real

DEV = str(ROOT / "profiles/dev.toml")
PAGE = (ROOT / "profiles/www/index.html").read_text()
WEB, GUEST, HELLO = "dev/container/web", "dev/vm/guest", "dev/sandbox/hello"
SECTORS = (1 << 30) // 512  # of the demo's disk
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=60).read().decode(), end='')"
WAIT_S = 120.0


def bring_up(site: Site) -> dict[str, Any]:
    """The run's summary."""
    for ref in (WEB, GUEST, HELLO):
        site.token(ref)
    return site.records("--profile", DEV, timeout=300)[-1]


def inspect(site: Site, ref: str) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(site.ok("inspect", ref, "--json"))["status"]
    return status


def pids(site: Site) -> dict[str, Any]:
    return {item["ref"]["name"]: item["pid"] for item in json.loads(site.ok("ls", "--json"))}


def published(site: Site) -> str:
    return site.machine.run(sys.executable, "-c", FETCH, "http://127.0.0.1:8088/")


def by_name(site: Site) -> str:
    """From the VM."""
    return site.ok("exec", GUEST, "--", "wget", "-q", "-O", "-", "http://web/")


def port_of(site: Site, ref: str) -> str:
    """The interface by which something is plugged in."""
    ports = inspect(site, "dev/network/lab")["ports"]
    (found,) = [port["interface"] for port in ports if port["consumer"]["name"] == ref.rpartition("/")[2]]
    return str(found)


def comes(site: Site, what: str, ref: str, phase: str, *, not_pid: int | None = None) -> int:
    """Wait until it is so; its pid."""
    deadline = time.monotonic() + WAIT_S
    while (status := inspect(site, ref))["phase"] != phase or status["pid"] == not_pid:
        assert time.monotonic() < deadline, f"{what}: {status}"
        time.sleep(0.1)
    return int(status["pid"] or 0)


class Foreign:
    """A bridge, a table and a container that are not ours, and must stay as they are."""

    def __init__(self, machine: Machine, folder: Path, name: str) -> None:
        self.machine = machine
        self.name = name
        self.state = f"/run/{name}"
        rootfs = folder / "foreign" / "rootfs"
        for path in ("bin", "proc", "dev", "sys"):
            (rootfs / path).mkdir(parents=True)
        (rootfs / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (rootfs / "bin/busybox").chmod(0o755)
        machine.cgroups.add(name)
        machine.sh(f"cd {rootfs.parent} && runc spec")
        config = json.loads((rootfs.parent / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": ["/bin/busybox", "sleep", "1000"]}
        config["linux"]["cgroupsPath"] = f"/{name}"
        (rootfs.parent / "config.json").write_text(json.dumps(config))
        machine.sh(f"runc --root {self.state} run -d -b {rootfs.parent} {name} </dev/null >/dev/null 2>&1")
        machine.sh(BRIDGE)
        machine.run("nft", "-f", "-", stdin=NFT)
        self.made = self.runs()

    def runs(self) -> tuple[int, str]:
        found = json.loads(self.machine.run("runc", "--root", self.state, "state", self.name))
        return found["pid"], found["status"]


BRIDGE = """
ip link add foreign0 type bridge
echo 1 >/proc/sys/net/ipv6/conf/foreign0/disable_ipv6  # whose addresses change by themselves
ip addr add 192.0.2.1/24 dev foreign0
ip link set foreign0 up
"""
NFT = """
table inet foreign {
    chain forward { type filter hook forward priority 0; policy accept; iifname "foreign0" drop comment "not vmtui"; }
    chain input { type filter hook input priority 0; policy accept; }
}
"""


def test_up_and_again_and_mended_and_down(site: Site) -> None:
    machine = site.machine
    foreign = Foreign(machine, site.root, f"foreign-{site.token(WEB)}")
    before, words = site.view(), machine.words()

    summary = bring_up(site)
    assert (summary["result"], summary["changes"], summary["exit_code"]) == ("converged", 5, 0)
    found = {item["ref"]["name"]: (item["phase"], item["ready"], item["problems"]) for item in summary["resources"]}
    phases = {"lab": "available", "data": "available", "web": "running", "guest": "running", "hello": "exited"}
    assert found == {name: (phase, True, []) for name, phase in phases.items()}
    assert int(site.ok("exec", GUEST, "--", "cat", "/sys/block/vda/size")) == SECTORS
    (address,) = [item["addresses"][0] for item in summary["resources"] if item["ref"]["name"] == "guest"]
    assert f" {address}/24 " in site.ok("exec", GUEST, "--", "ip", "-o", "-4", "addr", "show", "eth0")
    assert address in machine.sh("cat /run/vmtui-tap/*/leases")  # DHCP: dnsmasq gave it out
    assert by_name(site) == PAGE
    assert published(site) == PAGE
    assert inspect(site, HELLO)["exit"]["code"] == 0
    assert "hello from a WASM sandbox" in site.ok("logs", HELLO)

    running_before, there = pids(site), site.view()
    again = site.run("--profile", DEV)
    assert again.returncode == 0
    assert "5 ready, 0 changes" in again.stderr
    assert pids(site) == running_before
    assert there.diff(site.view()) == ""
    plan, summary = (site.records("--profile", DEV, "--plan")[at] for at in (1, -1))
    assert (plan["changes"], plan["unchanged"], summary["exit_code"]) == ([], 5, 0)
    assert site.run("--profile", DEV, "--check").returncode == 0

    boot, lost = site.ok("exec", GUEST, "--", "cat", "/proc/sys/kernel/random/boot_id"), port_of(site, GUEST)
    machine.run("ip", "link", "del", lost)
    checked = site.run("--profile", DEV, "--check")
    assert checked.returncode == 2
    assert checked.stdout == f"vm/guest: interface {lost} on network lab is gone\n"
    mended = site.records("--profile", DEV)
    steps = [(item["ref"]["name"], item["action"]) for item in mended if item["event"] == "step.start"]
    assert steps == [("guest", "reconnect")]
    assert (mended[-1]["changes"], mended[-1]["exit_code"]) == (1, 0)
    assert pids(site) == running_before
    assert [line for line in there.diff(site.view()).splitlines() if not line.endswith(".lock")] == []  # of `exec`
    assert by_name(site) == PAGE
    assert site.ok("exec", GUEST, "--", "cat", "/proc/sys/kernel/random/boot_id") == boot
    assert site.run("--profile", DEV, "--check").returncode == 0

    site.ok("--profile", DEV, "--down", "--purge", "--yes")
    assert before.diff(site.view()) == ""
    assert machine.words() == words
    assert foreign.runs() == foreign.made


@pytest.fixture(scope="module")
def demo(warm_cache: Path) -> Iterator[Site]:
    """The demo, up; each test leaves it as it found it."""
    with Machine() as machine, Site(machine, warm_cache) as site:
        assert bring_up(site)["exit_code"] == 0
        yield site


@pytest.fixture
def up(demo: Site) -> Iterator[Site]:
    """Whatever a test does, at its end all is as declared."""
    yield demo
    checked = demo.run("--profile", DEV, "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert by_name(demo) == PAGE
    assert published(demo) == PAGE


@pytest.mark.parametrize("ref", [WEB, GUEST])
def test_exec(up: Site, ref: str) -> None:
    done = up.run("exec", "-i", "-e", "WORD=given", ref, "--", "sh", "-c", "cat; echo $WORD; echo aside >&2; exit 7",
                  stdin=b"piped in\n")  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, "piped in\ngiven\n", "aside\n")


@pytest.mark.parametrize("ref", [WEB, GUEST])
def test_a_shell_on_a_terminal(up: Site, ref: str) -> None:
    with up.on_terminal("exec", "-it", ref, "--", "sh", rows=31, columns=97) as terminal:
        terminal.expect(r"[#$] ")
        terminal.send(b"stty size; tty | sed 's/^/is /'\r")
        terminal.expect(r"\n31 97\r\n")
        terminal.expect(r"is /dev/")
        terminal.send(b"echo be''gun; sleep 100\r")
        terminal.expect(r"\nbegun\r\n")
        terminal.send(b"\x03")  # the shell goes on, the command does not
        terminal.send(b"echo $((6 * 7)); exit 5\r")
        terminal.expect(r"\n42\r\n")
        assert terminal.end() == 5


def test_the_console_of_the_vm(up: Site) -> None:
    """Its serial line: the terminal in the guest echoes what is typed; nothing reads it."""
    for word in ("first", "second"):
        with up.on_terminal("console", GUEST) as terminal:
            terminal.expect(r"ctrl\+\] leaves it")
            terminal.send(f"typed {word}\r".encode())
            terminal.expect(f"typed {word}\r\n")
            terminal.send(b"\x1d")
            assert terminal.end() == 0
            assert "detached" in terminal.seen


def test_the_console_of_the_container(up: Site) -> None:
    """It has no terminal, so its console shows what it writes, here the web server's word on each request."""
    with up.on_terminal("console", WEB) as terminal:
        terminal.expect(r"ctrl\+\] leaves it")
        deadline = time.monotonic() + WAIT_S
        while "response:200" not in terminal.seen and time.monotonic() < deadline:  # attached a moment after it says so
            published(up)
            terminal.drain()
        terminal.expect(r"response:200")
        terminal.send(b"\x1d")
        assert terminal.end() == 0


def test_logs(up: Site) -> None:
    assert "guest is ready" in up.ok("logs", GUEST).splitlines()
    assert f"http://web/ says: {PAGE}".strip() in up.ok("logs", GUEST)
    assert f"vda has {SECTORS} sectors" in up.ok("logs", "-n", "5", GUEST)
    published(up)
    assert "response:200" in up.ok("logs", "-n", "1", WEB)
    (line,) = up.records("logs", "-n", "1", WEB)
    assert "response:200" in line["text"]
    with up.started("logs", "-f", "-n", "0", WEB) as follower:
        assert follower.stdout is not None
        deadline = time.monotonic() + WAIT_S
        while not select.select([follower.stdout], [], [], 0.5)[0]:  # it begins to follow at some time
            assert time.monotonic() < deadline
            published(up)
        assert b"response:200" in follower.stdout.readline()


def test_what_dies_comes_back_with_no_front_end_open(up: Site) -> None:
    before = comes(up, "it runs", WEB, "running")
    guest = pids(up)["guest"]
    up.machine.run("kill", "-KILL", str(before))
    comes(up, "it was restarted", WEB, "running", not_pid=before)
    deadline = time.monotonic() + WAIT_S
    while not re.search(r"dev/container/web +restart done", events := up.ok("events")):  # told once it is up
        assert time.monotonic() < deadline, events
    assert re.search(r"dev/container/web +exit exited: code 137", events)
    assert pids(up)["guest"] == guest


@pytest.mark.parametrize("ref", [WEB, GUEST])
def test_pause_and_resume(up: Site, ref: str) -> None:
    before = inspect(up, ref)
    up.ok("pause", ref)
    assert inspect(up, ref)["phase"] == "paused"
    drift = up.run("--profile", DEV, "--check")
    assert (drift.returncode, drift.stdout) == (2, f"{ref.partition('/')[2]}: it is paused\n")
    up.refused(71, "exec", ref, "--", "true")
    up.ok("resume", ref)
    after = inspect(up, ref)
    assert (after["phase"], after["pid"]) == ("running", before["pid"])


@pytest.mark.parametrize("ref", [WEB, GUEST])
def test_stop_and_start(up: Site, ref: str) -> None:
    before, there = inspect(up, ref), up.view()
    up.ok("stop", ref)
    assert (inspect(up, ref)["phase"], inspect(up, ref)["pid"]) == ("stopped", None)
    assert up.machine.sh(f"ps -o args= -p {before['pid']} || true") == ""
    drift = up.run("--profile", DEV, "--check")
    assert drift.returncode == 2
    assert drift.stdout.startswith(f"{ref.partition('/')[2]}: it is stopped")
    up.ok("start", ref)
    after = inspect(up, ref)
    assert (after["phase"], after["pid"]) != ("running", before["pid"])
    assert after["addresses"][0]["address"] == before["addresses"][0]["address"]
    summary = up.records("--profile", DEV, timeout=300)[-1]
    assert (summary["changes"], summary["exit_code"]) == (0, 0)
    lines = there.diff(up.view()).splitlines()
    assert [line for line in lines if not line.startswith(("files: ", "processes: "))] == []
