"""Over SSH as one works with it: a network, a container, a VM and a disk that are real, on a machine of its own."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.machine import Site
from tests.support.ssh_clients import Client
from tests.support.ssh_server import Console

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

PROFILE = b"""
name = "dev"
[network.lab]
subnet = "10.88.9.0/24"
[disk.data]
size = "64MiB"
[container.web]
image = "deb:busybox-static"
command = ["sh", "-c", "mkdir /tmp/www; echo hello from web >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"]
networks = ["lab"]
ready = { tcp = 80 }
[vm.guest]
kernel = "deb:linux-image-cloud-amd64"
rootfs = "deb:busybox-static"
memory = "256MiB"
disks = ["data"]
networks = ["lab"]
command = ["sh", "-c", "echo guest is ready; while read -r line; do echo it said $line; done </dev/console"]
ready = { log = "^guest is ready", timeout = "3m" }
"""
REFS = ("network/lab", "disk/data", "container/web", "vm/guest")
GET = b"GET / HTTP/1.0\r\n\r\n"
SLOW_S = 400.0


def test_one_works_with_real_resources(site: Site) -> None:
    before = site.machine.words()
    for ref in REFS:
        site.token(f"dev/{ref}")
    console = Console(site.root, cli=site)
    anna, olaf, vera = (
        console.person(name, role) for name, role in (("anna", "admin"), ("olaf", "operator"), ("vera", "viewer"))
    )
    console.start()
    openssh = Client("openssh", site.root / "home", console.door, site.machine.inside)

    # All of it comes up through stdin, and is seen
    done = openssh.run(olaf, "apply", "--json", stdin=PROFILE, timeout=SLOW_S)
    assert done.returncode == 0, done
    assert json.loads(done.stdout.splitlines()[-1])["result"] == "converged"
    assert openssh.run(olaf, "plan", stdin=PROFILE).returncode == 0
    listed = openssh.run(vera, "ls", "--json")
    phases = {status["ref"]["name"]: status["phase"] for status in json.loads(listed.stdout)}
    assert phases["guest"] == phases["web"] == "running"

    # What looks works within the walls of a viewer, and changes nothing
    words = site.machine.words()
    for verb in ("inspect vm/guest", "logs vm/guest", "stats", "doctor", "events", "ls"):
        seen = openssh.run(vera, *verb.split(), timeout=SLOW_S)
        assert seen.returncode in (0, 69), (verb, seen)
        assert b"Traceback" not in seen.stderr
    for verb in ("stop web", "rm guest", "exec web -- id", "console guest", "down dev --purge --yes"):
        assert openssh.run(vera, *verb.split()).returncode == 77, verb
    assert openssh.run(vera, more=("-W", "web:80"), stdin=GET).returncode == 255
    assert site.machine.words() == words
    with openssh.on_terminal(vera) as panel:
        panel.sees("● running")
        panel.send(b"q")
        assert panel.end() == 0

    # A port by name, a command inside, a console; the guest outlives them all
    answer = openssh.run(olaf, more=("-W", "web:80"), stdin=GET)
    assert b"hello from web" in answer.stdout, answer
    for port in ("guest:22", "127.0.0.1:22", "localhost:80", "10.88.9.1:80"):
        refused = openssh.run(olaf, more=("-W", port), stdin=GET)
        assert refused.returncode == 255, (port, refused)
    done = openssh.run(olaf, "exec", "-i", "vm/guest", "--", "sh", "-c", "'cat; exit 3'", stdin=b"\xff\x00 as it is")
    assert (done.returncode, done.stdout) == (3, b"\xff\x00 as it is"), done
    with openssh.on_terminal(olaf, "console", "vm/guest") as terminal:
        terminal.sees("ctrl+] leaves it")
        terminal.send(b"hi\r")
        terminal.sees("it said hi")
        os.killpg(terminal.process.pid, signal.SIGKILL)
    with openssh.on_terminal(olaf, "exec", "-it", "container/web", "--", "sh") as terminal:
        terminal.send(b"echo from${x}inside\r")
        terminal.sees("\nfrominside")
        terminal.send(b"exit 7\r")
        assert terminal.end() == 7
    assert b"running" in openssh.run(vera, "ls", "vm/guest").stdout

    # Data goes only by who may purge; then all is as it was
    assert openssh.run(olaf, "down", "dev", "--purge", "--yes").returncode == 77
    assert openssh.run(olaf, "down", "dev", timeout=SLOW_S).returncode == 0
    assert openssh.run(vera, "ls", "--plain").stdout == b"dev/disk/data\n"
    assert openssh.run(anna, "rm", "--purge", "--yes", "disk/data").returncode == 0
    assert openssh.run(vera, "ls", "--plain").stdout == b""
    assert site.run("audit", "verify").returncode == 0
    assert site.machine.words() == before
