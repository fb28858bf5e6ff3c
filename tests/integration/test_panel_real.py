"""The panel as its user has it: the real program in a terminal, over the demo profile that was really brought up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.test_demo import DEV, GUEST, WEB, bring_up, inspect, port_of
from tests.support.machine import Site
from tests.support.tmux import Tmux

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

LOGIN = """
name = "login"
[vm.box]
kernel = "deb:linux-image-cloud-amd64"
rootfs = "deb:busybox-static"
memory = "256MiB"
network_mode = "none"
command = ["sh", "-c", '''
echo "root::0:0:root:/root:/bin/sh" >/etc/passwd
echo "box is ready"
while :; do setsid getty -L ttyS0 115200 vt100; sleep 0.2; done
''']
ready = { log = "^box is ready", timeout = "3m" }
"""


def panel(site: Site, *words: str, columns: int = 120, rows: int = 36) -> Tmux:
    inside = site.argv(*words)
    program = inside[inside.index("-C") + 2 :]
    environment = {name: value for name, value in site.environment.items() if name.startswith("XDG_")}
    return Tmux(site.machine.run, program, environment, columns=columns, rows=rows)


def phase(site: Site, ref: str) -> str:
    return str(inspect(site, ref)["phase"])


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not in PATH")
def test_the_demo_in_the_panel(site: Site) -> None:
    before = site.machine.words()
    bring_up(site)
    with panel(site) as tmux:
        tmux.wait(r"● running +vm +guest")
        words = ("✓ exited 0  sandbox   hello", "http://127.0.0.1:8088/")
        tmux.until(lambda screen: all(word in screen for word in words), f"{words}")

        # Filter, and the detail of what it found
        tmux.keys("/")
        tmux.type("kind:container")
        tmux.keys("Enter")
        tmux.wait(r"1 of 5 +/kind:container")
        tmux.wait_not(r"guest")
        tmux.keys("d")
        tmux.wait(r"uses +dev/network/lab")
        tmux.wait(r"deb:busybox-static")
        tmux.keys("d")

        # Its log
        tmux.keys("l")
        tmux.wait(r"response:200")
        tmux.keys("1")
        tmux.wait(r"STATE +KIND")

        # A shell in it: an editor that takes the whole screen, left, and come back to
        tmux.keys("s")
        tmux.wait(r"dev/container/web +shell")
        tmux.type("vi /srv/www/index.html\r")
        tmux.wait(r"^~$")
        tmux.keys("C-]")
        tmux.wait(r"STATE +KIND")
        tmux.keys("3")
        tmux.wait(r"^~$")
        tmux.type(":q!\r")
        tmux.wait_not(r"^~$")
        tmux.keys("C-]")
        tmux.wait(r"STATE +KIND")

        # Stop asks; undo starts it again
        tmux.keys("x")
        tmux.wait(r"stop dev/container/web\?")
        tmux.keys("Enter")
        tmux.wait_not(r"stop dev/container/web\?")
        assert phase(site, WEB) == "running"
        tmux.keys("x")
        tmux.wait(r"stop dev/container/web\?")
        tmux.keys("y")
        tmux.wait(r"○ stopped +container +web")
        assert phase(site, WEB) == "stopped"
        tmux.wait(r"u Undo")  # a moment later, when the stop is over
        tmux.keys("u")
        tmux.wait(r"● running +container +web")
        assert phase(site, WEB) == "running"
        tmux.keys("Escape", "Escape")

        # What vmtui really ran
        tmux.keys("7", "7", "7")
        tmux.wait(r"Actions")
        tmux.wait(r"runc")
        tmux.keys("6")
        tmux.wait(r"dev.*\n.*lab")

        # Drift: somebody takes the VM's TAP away; the profile screen names it and mends that alone
        pid = inspect(site, GUEST)["pid"]
        site.machine.run("ip", "link", "del", port_of(site, GUEST))
        tmux.keys(":")
        tmux.type(f"profile {DEV}\r")
        tmux.wait(r"reconnect")
        tmux.keys("a")
        tmux.wait(r"Cancel")
        tmux.keys("y")
        tmux.wait(r"1 change, .* all ready")
        assert inspect(site, GUEST)["pid"] == pid
        assert site.run("--profile", DEV, "--check").returncode == 0

        # Every size
        tmux.keys("1")
        for columns, rows in ((80, 24), (40, 10), (160, 50)):
            tmux.resize(columns, rows)
            tmux.wait(r"running")
        tmux.keys("q")
        tmux.wait(r"ended 0")
    assert site.run("--profile", DEV, "--down", "--purge", "--yes").returncode == 0
    assert site.machine.words() == before


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not in PATH")
def test_logged_in_on_the_serial_console(site: Site, tmp_path: Path) -> None:
    profile = site.root / "login.toml"
    profile.write_text(LOGIN)
    site.token("login/vm/box")
    assert site.run("--profile", str(profile), timeout=300).returncode == 0
    with panel(site, columns=100, rows=30) as tmux:
        tmux.wait(r"● running +vm +box")
        tmux.keys("c")
        tmux.wait(r"login/vm/box +serial console")
        tmux.keys("Enter")
        tmux.wait(r"box login:")
        tmux.type("root\r")
        tmux.wait(r"^/root #|^~ #|^# ?$|/ #")
        tmux.type("top\r")
        tmux.wait(r"PID +PPID +USER")
        tmux.keys("C-]")
        tmux.wait(r"STATE +KIND")
        tmux.keys("c")
        tmux.wait(r"PID +PPID +USER")
        tmux.type("q")
        tmux.type("echo $((6 * 7)) answers\r")
        tmux.wait(r"^42 answers")
        tmux.type("echo 'one two' >/tmp/x; vi /tmp/x\r")
        tmux.wait(r"^~$")
        tmux.type("dwx:wq\r")
        tmux.wait_not(r"^~$")
        tmux.type("cat /tmp/x\r")
        tmux.wait(r"^wo$")
        tmux.keys("C-]")
        tmux.wait(r"STATE +KIND")
        tmux.keys("q")
        tmux.wait(r"ended 0")
    said = json.loads(site.ok("inspect", "login/vm/box", "--json"))
    assert said["status"]["phase"] == "running"  # leaving the panel ends nothing
    assert site.run("--profile", str(profile), "--down", "--purge", "--yes").returncode == 0
