"""Coming in over SSH, with OpenSSH: who is let in and as what, what the server says of it, and what it reads anew."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.ssh_clients import Client
from tests.support.ssh_keys import Key, tool
from tests.support.ssh_server import Console

REFUSED = 255
ROLES = """
[role.starter]
about = "starts and stops what is in dev"
[[role.starter.allow]]
verbs = ["view", "start", "stop"]
names = ["dev/*"]
"""


@pytest.fixture(scope="module")
def console() -> Iterator[Console]:
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    try:
        with Console(root, roles=ROLES) as made:
            made.person("anna", "admin")
            made.start()
            yield made
            assert "Traceback" not in made.said()
            made.cli.ok("audit", "verify")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def ssh(console: Console) -> Client:
    return console.client()


@pytest.fixture
def spare() -> Iterator[Console]:
    """One with one admin that nobody has started."""
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    try:
        with Console(root) as made:
            made.person("anna", "admin")
            yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


def anna(console: Console) -> Key:
    return Key(console.root / "keys" / "anna_ed25519")


def with_options(
    ssh: Client, key: Key, *command: str, more: Sequence[str] = (), **options: str
) -> subprocess.CompletedProcess[bytes]:
    """As `ssh.run`, with other options of OpenSSH than the ones that it has: of several the first one counts."""
    argv = ssh.argv(key, *command, tty=False, more=more)
    own = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return subprocess.run(
        [argv[0], *own, *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, env=ssh.environment, cwd=ssh.home,
        check=False, timeout=60,
    )  # fmt: skip


def newcomer(console: Console, name: str, role: str, *options: str) -> Key:
    key = console.person(name, role, *options)
    console.reload()
    return key


def certified(console: Console, name: str, *words: str) -> Key:
    """A person whose certificate, of the authority "ca", is beside their key."""
    key, ca = console.key(name), Key(console.root / "keys" / "ca_ed25519")
    if not ca.path.exists():
        console.key("ca")
        console.add_line(f'cert-authority,role="viewer" {ca.public} ca')
        console.reload()
    tool("ssh-keygen", "-q", "-s", str(ca.path), "-I", f"id of {name}", *words, str(key.path.with_suffix(".pub")))
    return key


def audited(console: Console, **wanted: str) -> list[dict[str, str]]:
    """The records that have these fields."""
    whole = (console.paths.state / "audit.log").read_text().rpartition("\n")[0]  # the last line may be half written
    lines = whole.splitlines()
    found: list[dict[str, str]] = [json.loads(line) for line in lines]
    return [record for record in found if all(record[name] == value for name, value in wanted.items())]


# Coming in


def test_the_first_start_makes_a_host_key_and_says_how_to_connect(console: Console) -> None:
    path = console.paths.state / "ssh" / "host_ed25519"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = tool("ssh-keygen", "-lf", str(path)).split()[1]
    said = console.said()
    assert f"host key {shown} (ssh-ed25519)\n" in said
    assert f"connect with: ssh -p {console.port} 127.0.0.1\n" in said
    assert console.cli.run("serve", "--fingerprint").stdout == f"{shown}\n"


def test_one_is_who_the_line_of_the_key_says_and_not_the_login(console: Console, ssh: Client) -> None:
    for login in ("anna", "root", "nobody-of-here"):
        done = ssh.run(anna(console), "whoami", "--json", more=("-l", login))
        assert done.returncode == 0, done
        me = json.loads(done.stdout)
        assert (me["person"], me["role"], me["key"]) == ("anna", "admin", anna(console).fingerprint)


def test_stdout_is_clean_and_the_exit_code_is_the_verbs(console: Console, ssh: Client) -> None:
    done = ssh.run(anna(console), "ls", "--json")
    assert (done.returncode, done.stdout) == (0, b"[]\n")
    assert ssh.run(anna(console), "inspect", "nothing").returncode == 64
    assert ssh.run(anna(console), "vmtui", "ls", "--json").stdout == b"[]\n"
    assert b"no closing quotation" in ssh.run(anna(console), "ls 'x").stderr


def test_a_role_of_ones_own(console: Console, ssh: Client) -> None:
    key = newcomer(console, "sven", "starter")
    assert json.loads(ssh.run(key, "whoami", "--json").stdout)["role"] == "starter"
    assert ssh.run(key, "down", "dev").returncode == 77


def test_nothing_but_a_key_is_asked_for(console: Console, ssh: Client) -> None:
    done = ssh.run(console.key("stranger"), "ls", more=("-o", "PreferredAuthentications=password,publickey"))
    assert done.returncode == REFUSED
    assert b"Permission denied (publickey)." in done.stderr


# Staying out


@pytest.mark.parametrize(
    "exchange",
    [
        "diffie-hellman-group14-sha1", "diffie-hellman-group18-sha512", "diffie-hellman-group-exchange-sha256",
    ],
)  # fmt: skip
def test_nobody_asks_for_a_key_exchange_that_is_weak_or_dear(console: Console, ssh: Client, exchange: str) -> None:
    done = with_options(ssh, anna(console), "whoami", KexAlgorithms=exchange, LogLevel="INFO")
    assert done.returncode == REFUSED
    assert b"no matching key exchange method" in done.stderr


@pytest.mark.parametrize("exchange", ["curve25519-sha256", "ecdh-sha2-nistp256", "diffie-hellman-group14-sha256"])
def test_key_exchanges_of_older_clients_are_there(console: Console, ssh: Client, exchange: str) -> None:
    assert with_options(ssh, anna(console), "whoami", KexAlgorithms=exchange).returncode == 0


def test_a_stranger_is_noted_with_the_key(console: Console, ssh: Client) -> None:
    key = console.key("unknown")
    assert ssh.run(key, "ls").returncode == REFUSED
    why = f"key {key.fingerprint} is not known"
    console.until(lambda: why in console.said(), "it to say who was refused")
    console.until(lambda: audited(console, verb="login", result="denied", message=why), "the record of it")


def test_who_has_a_key_that_is_not_enough_is_told_why(console: Console, ssh: Client) -> None:
    cases = {
        'role="viewer",expiry-time="20200101Z"': "expired at 2020-01-01",
        'role="viewer",from="192.0.2.0/24"': "may not come from 127.0.0.1",
        "no-pty": "has no role",
    }
    keys = {options: console.key(f"out-{number}") for number, options in enumerate(cases)}
    for options, key in keys.items():
        console.add_line(f"{options} {key.public} {key.path.name}")
    console.reload()
    with ThreadPoolExecutor() as pool:  # each is answered late
        answers = pool.map(lambda key: with_options(ssh, key, "ls", LogLevel="INFO"), keys.values())
        for (options, why), done in zip(cases.items(), answers, strict=True):
            assert done.returncode == REFUSED
            assert "vmtui: refused: " in done.stderr.decode()
            assert why in done.stderr.decode()
            console.until(
                lambda key=keys[options], why=why: any(
                    why in record["message"] for record in audited(console, result="denied", key=key.fingerprint)
                ),
                f"the record of {why}",
            )


def test_a_good_key_comes_in_after_some_that_are_not(console: Console, ssh: Client) -> None:
    words = [word for number in range(5) for word in ("-i", str(console.key(f"wrong-{number}").path))]
    argv = ssh.argv(anna(console), "whoami", tty=False)
    done = subprocess.run(
        [argv[0], *words, *argv[1:]], capture_output=True, env=ssh.environment, check=False, timeout=60
    )
    assert done.returncode == 0, done


# Certificates


def test_a_certificate_comes_in_as_its_principal(console: Console, ssh: Client) -> None:
    key = certified(console, "cleo", "-n", "cleo", "-V", "+1h")
    me = json.loads(ssh.run(key, "whoami", "--json", more=("-l", "cleo")).stdout)
    assert (me["person"], me["role"], me["key"]) == ("cleo", "viewer", key.fingerprint)


def test_certificates_that_are_not_enough(console: Console, ssh: Client) -> None:
    cases: dict[str, tuple[str, tuple[str, ...]]] = {
        "late": ("expired", ("-n", "late", "-V", "20200101:20200102")),
        "early": ("not yet valid", ("-n", "early", "-V", "+1h:+2h")),
        "other": ("not the name of the login, 'other'", ("-n", "somebody", "-V", "+1h")),
        "far": ("not valid from 127.0.0.1", ("-n", "far", "-V", "+1h", "-O", "source-address=192.0.2.0/24")),
    }
    keys = {name: certified(console, name, *words) for name, (_, words) in cases.items()}

    def come(name: str) -> subprocess.CompletedProcess[bytes]:
        more = ("-l", name, "-o", f"CertificateFile={keys[name].path}-cert.pub")
        return ssh.run(keys[name], "ls", more=more)

    begin = len(console.log.read_bytes())
    with ThreadPoolExecutor() as pool:  # each is answered late
        assert [done.returncode for done in pool.map(come, cases)] == [REFUSED] * len(cases)
    for why, _ in cases.values():
        console.until(lambda why=why: why in console.said(begin), f"it to say {why}")


def test_a_certificate_forces_its_command(console: Console, ssh: Client) -> None:
    key = certified(console, "forced", "-n", "forced", "-V", "+1h", "-O", "force-command=whoami --json")
    done = ssh.run(key, "ls", more=("-l", "forced"))
    assert json.loads(done.stdout)["person"] == "forced"


# Reading anew


def test_a_file_that_is_wrong_changes_nothing_and_its_line_is_named(console: Console, ssh: Client) -> None:
    good = console.keys.read_text()
    try:
        console.add_line("role=viewer ssh-ed25519 AAAA broken")
        begin = len(console.log.read_bytes())
        console.reload()
        line = len(good.splitlines()) + 1
        assert f"{console.keys}:{line}: " in console.said(begin)
        assert "all stays as it was" in console.said(begin)
        assert ssh.run(anna(console), "whoami").returncode == 0
    finally:
        console.keys.write_text(good)
        console.reload()


def test_who_is_no_longer_permitted_must_go(console: Console, ssh: Client) -> None:
    before = console.keys.read_text()
    key = newcomer(console, "gone", "viewer")
    with ssh.on_terminal(anna(console), "events", "-f") as stays, ssh.on_terminal(key, "events", "-f") as leaves:
        console.until(lambda: len(console.guests()) == 2, "both to be there")
        console.keys.write_text(before)
        console.reload()
        assert leaves.end() in (REFUSED, 128 + signal.SIGTERM, 128 + signal.SIGHUP)  # what the client heard of first
        console.until(lambda: len(console.guests()) == 1, "one to be gone")
        assert stays.process.poll() is None


# What cannot be begun


@pytest.mark.parametrize(
    ("break_it", "says", "hint"),
    [
        ("keys", "authorized_keys:2: ", 'write: role="operator"'),
        ("roles", "serve.toml:3: role.x.verbs", ""),
        ("host key", "can be read by others (mode 0640)", "chmod 600"),
        ("port", "is in use on this host by ", "ss -Htulnp"),
        ("mode", "others can write it (mode 0666)", "chmod go-w"),
    ],
)
def test_it_does_not_begin_with_what_is_wrong(spare: Console, break_it: str, says: str, hint: str) -> None:
    with socket.socket() as other:
        if break_it == "keys":
            spare.add_line("nonsense")
        elif break_it == "roles":
            spare.serve_toml.write_text("[serve]\n[role.x]\nverbs = 1\n")
        elif break_it == "mode":
            spare.keys.chmod(0o666)
        elif break_it == "host key":
            spare.cli.ok("serve", "--fingerprint")
            (spare.paths.state / "ssh" / "host_ed25519").chmod(0o640)
        else:
            other.bind(("127.0.0.1", spare.port))
            other.listen()
        done = spare.cli.run("serve", "--listen", f"127.0.0.1:{spare.port}")
    assert done.returncode not in (0, 1), done
    assert done.stderr.count("error: ") == 1
    assert says in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_wrong_is_found_without_serving(spare: Console) -> None:
    done = spare.cli.run("serve", "--check")
    assert done.returncode == 0
    assert done.stdout == f"good: 1 key in {spare.keys}; 3 roles, 0 of them your own\n"
    assert not (spare.paths.state / "ssh").exists()
    spare.add_line("nonsense")
    assert spare.cli.run("serve", "--check").returncode != 0


# Its end, and its next key


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_ends_with_its_sessions(spare: Console, number: int, code: int) -> None:
    spare.start()
    with spare.client().on_terminal(anna(spare), "events", "-f") as terminal:
        spare.until(lambda: spare.guests(), "the session to be there")
        assert spare.stop(number) == code
        assert terminal.end() != 0
    spare.gone()
    assert [record["result"] for record in audited(spare, verb="serve")] == ["done", "closed"]


def test_two_do_not_serve_one_workspace(spare: Console) -> None:
    spare.start()
    words = ("serve", "--listen", "127.0.0.1:0")
    done = spare.cli.run(*words)
    assert done.returncode == 75, done


def test_clients_learn_the_next_host_key_before_it_is_used(spare: Console) -> None:
    spare.start()
    ssh = spare.client()
    old = tool("ssh-keygen", "-lf", str(ssh.known_hosts)).split()[1]
    made = spare.cli.run("serve", "--rotate-host-key")
    assert made.returncode == 0
    assert made.stdout.startswith("SHA256:")
    spare.reload()
    assert with_options(ssh, anna(spare), "whoami", UpdateHostKeys="yes").returncode == 0
    known = {line.split()[1] for line in tool("ssh-keygen", "-lf", str(ssh.known_hosts)).splitlines()}
    assert old in known
    assert known == {old, made.stdout.strip()}
    coming = spare.paths.state / "ssh" / "host_ed25519.next"
    long_ago = time.time() - 30 * 86400
    os.utime(coming, (long_ago, long_ago))
    spare.reload()
    assert with_options(ssh, anna(spare), "whoami", UpdateHostKeys="yes").returncode == 0
    assert not coming.exists()
    now = {line.split()[1] for line in tool("ssh-keygen", "-lf", str(ssh.known_hosts)).splitlines()}
    assert now == known - {old}
