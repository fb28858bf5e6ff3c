"""What of a real container and a real disk one reaches over SSH: its ports by name, and its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.machine import Site
from tests.support.ssh_clients import HOST, LOGIN, Client
from tests.support.ssh_keys import Key
from tests.support.ssh_server import Console

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ROLES = """
[role.courier]
about = "copies files of what is in dev"
[[role.courier.allow]]
verbs = ["view", "files"]
names = ["dev/*"]
[role.guest]
[[role.guest.allow]]
verbs = ["view", "connect"]
names = ["dev/container/web"]
"""
# What the program makes in its volume is hostile to whoever follows it.
PROGRAM = (
    "cd /srv; echo hello from web >index.html; ln -s / up; ln -s /etc/passwd evil; ln -s ../../../../../.. far;"
    " mkfifo fifo; mknod null c 1 3; exec httpd -f -p 80 -h /srv"
)
PROFILE = f"""
[network.lab]
subnet = "10.88.9.0/24"
[disk.data]
size = "16MiB"
[container.web]
image = "deb:busybox-static"
stop_grace_period = "100ms"
command = ["sh", "-c", {json.dumps(PROGRAM)}]
cap_add = ["MKNOD"]
networks = ["lab"]
ports = ["127.0.0.1:18080:80"]
volumes = ["www:/srv"]
ready = {{ tcp = 80 }}
[container.other]
image = "deb:busybox-static"
stop_grace_period = "100ms"
command = ["sleep", "1000"]
networks = ["lab"]
"""
# Debian's dropbear on the libraries of the host.
SSHD = (
    "mkdir -p /lib64 /etc/dropbear /root/.ssh; ln -sf /host/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 /lib64;"
    ' echo "$KEY" >/root/.ssh/authorized_keys; chmod -R go= /root; exec /host/sbin/dropbear -R -F -E -s'
)
BOX = """
[container.box]
image = "deb:busybox-static"
stop_grace_period = "100ms"
hostname = "inside-box"
command = ["sh", "-c", {command}]
environment = {{ KEY = {key}, LD_LIBRARY_PATH = "/host/lib/x86_64-linux-gnu" }}
networks = ["lab"]
volumes = ["/usr:/host:ro"]
ready = {{ tcp = 22 }}
"""
FETCH = """
import sys, time, urllib.error, urllib.request
for _ in range(900):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
        break
    except urllib.error.URLError:  # ssh does not listen yet
        time.sleep(0.1)
"""
REFS = ("network/lab", "disk/data", "container/web", "container/other", "container/box")
GET = b"GET / HTTP/1.0\r\n\r\n"
WWW = "/dev/container/web/www"
IMAGE = "/dev/disk/data/disk.qcow2"


def sftp(ssh: Client, key: Key, site: Site, commands: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    argv = [*ssh.openssh(key, "sftp"), *options, "-P", str(ssh.door.port), "-b", "-", f"{LOGIN}@{HOST}"]
    return subprocess.run(
        site.machine.inside(*argv, folder=ssh.home),
        input=commands.encode(),
        capture_output=True,
        env=ssh.environment,
        check=False,
        timeout=120,
    )


def test_ports_and_files_are_reached_by_who_may(site: Site) -> None:
    for ref in REFS:
        site.token(f"dev/{ref}")
    with Console(site.root, roles=ROLES, cli=site) as console:
        olaf, vera = console.person("olaf", "operator"), console.person("vera", "viewer")
        carl, gus = console.person("carl", "courier"), console.person("gus", "guest")
        pinned = console.person("pinned", "operator", 'permitopen="web:80"')
        alone = console.person("alone", "operator", "restrict,pty")
        box = BOX.format(command=json.dumps(SSHD), key=json.dumps(olaf.public))
        site.ok("--profile", site.profile(PROFILE + box, "dev"), timeout=300)
        console.start()
        ssh = Client("openssh", site.root / "home", console.door, site.machine.inside)
        _ports(ssh, console, {"olaf": olaf, "vera": vera, "carl": carl, "gus": gus, "pinned": pinned, "alone": alone})
        _files(ssh, site, console, carl, olaf)
        _through(ssh, site, olaf)
        site.ok("audit", "verify")
        records = [json.loads(line) for line in (site.paths.state / "audit.log").read_text().splitlines()]
        closed = [one for one in records if (one["verb"], one["result"]) == ("connect", "closed")]
        assert closed[0]["refs"] == ["dev/container/web"]
        assert "bytes from it" in closed[0]["message"]
        console.stop()
    site.ok("down", "dev", "--purge", "--yes", timeout=120)


def _ports(ssh: Client, console: Console, people: dict[str, Key]) -> None:
    for name in ("web", "container/web", "dev/container/web", "web.dev", "web.container.dev"):
        answer = ssh.run(people["olaf"], more=("-W", f"{name}:80"), stdin=GET)
        assert b"hello from web" in answer.stdout, (name, answer)
    for who in ("gus", "pinned"):
        assert b"hello from web" in ssh.run(people[who], more=("-W", "web:80"), stdin=GET).stdout
    refused = [
        ("vera", "web:80", "may not connect"),
        ("carl", "web:80", "may not connect"),
        ("alone", "web:80", "may not forward ports"),
        ("gus", "other:80", "there is no"),
        ("pinned", "container/web:80", "may not connect there"),
        ("olaf", "web:81", "connection refused"),
        ("olaf", "data:80", ""),
        *(("olaf", f"{host}:{port}", "there is no") for host in ("127.0.0.1", "localhost", "10.88.9.1", "::1", "lab.x")
          for port in (ssh.door.port, 18080)),
    ]  # fmt: skip
    for who, to, why in refused:
        begin = len(console.log.read_bytes())
        done = ssh.run(people[who], more=("-W", to if to.count(":") == 1 else f"[{to[:-6]}]{to[-6:]}"), stdin=GET)
        assert done.returncode == 255, (who, to, done)
        assert why in console.said(begin), (who, to, done)


def _files(ssh: Client, site: Site, console: Console, carl: Key, olaf: Key) -> None:
    assert sftp(ssh, olaf, site, "ls /\n").returncode != 0
    (ssh.home / "page").write_text("a new page")
    done = sftp(
        ssh, carl, site,
        f"""
        cd {WWW}
        put page index.html
        mkdir folder
        put page folder/page
        get index.html back
        ls -la up
        -get evil stolen
        -get far/etc/passwd stolen
        -get up/etc/passwd stolen
        -get fifo stolen
        -get null stolen
        -put page evil
        -put page /dev/container/web/x
        get {IMAGE} copy
        -put page {IMAGE}
        -ls /dev/container/other
        """,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert (ssh.home / "back").read_text() == "a new page"
    assert not (ssh.home / "stolen").exists()
    assert (ssh.home / "copy").read_bytes()[:4] == b"QFI\xfb"
    answer = ssh.run(Key(console.root / "keys" / "gus_ed25519"), more=("-W", "web:80"), stdin=GET)
    assert b"a new page" in answer.stdout
    image = next(Path(site.paths.state).rglob("disk.qcow2"))
    holds = site.machine.inside("sh", "-c", 'exec 3<>"$0"; echo holds; read -r end', str(image))
    with subprocess.Popen(holds, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        assert user.stdout.readline() == b"holds\n"
        busy = sftp(ssh, carl, site, f"get {IMAGE} other\n")
        user.stdin.close()
    assert busy.returncode != 0
    assert not os.path.exists(ssh.home / "other")
    scp = [*ssh.openssh(carl, "scp"), "-P", str(ssh.door.port), "page", f"{LOGIN}@{HOST}:{WWW}/by-scp"]
    run = site.machine.inside(*scp, folder=ssh.home)
    assert subprocess.run(run, env=ssh.environment, cwd=ssh.home, check=False, timeout=60).returncode == 0
    old = [scp[0], "-O", *scp[1:]]
    run = site.machine.inside(*old, folder=ssh.home)
    assert subprocess.run(run, env=ssh.environment, cwd=ssh.home, check=False, timeout=60).returncode != 0


def _through(ssh: Client, site: Site, key: Key) -> None:
    """To a guest's own sshd by `ssh -J`, and to its page by `ssh -L`."""
    config = ssh.home / "config"
    lines = ssh.openssh(key, "ssh")[3:]
    config.write_text(
        f"Host console\nHostName {HOST}\nPort {ssh.door.port}\nUser {LOGIN}\nHost box\nUser root\n"
        "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nHost *\n"
        + "".join(f"{option.replace('=', ' ', 1)}\n" for option in lines[1::2])
    )
    argv = ["ssh", "-F", str(config), "-J", "console", "box", "hostname; exit 7"]
    there = subprocess.run(
        site.machine.inside(*argv, folder=ssh.home), capture_output=True, env=ssh.environment, check=False, timeout=90
    )
    assert (there.returncode, there.stdout) == (7, b"inside-box\n"), there
    forwards = ssh.argv(key, tty=False, more=("-N", "-L", "127.0.0.1:18081:web:80"))
    with subprocess.Popen(forwards, env=ssh.environment, cwd=ssh.home) as forwarding:
        fetch = site.machine.inside(sys.executable, "-c", FETCH, "http://127.0.0.1:18081/")
        page = subprocess.run(fetch, capture_output=True, text=True, check=False, timeout=180)
        forwarding.terminate()
    assert page.stdout == "a new page\n", page
