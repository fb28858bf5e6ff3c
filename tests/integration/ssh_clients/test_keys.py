"""Who is let in, by which line of authorized_keys, and as what; and files with which no server starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.integration.ssh_clients.conftest import House
from tests.support.ssh_clients import PROGRAMS, Client
from tests.support.ssh_server import Console

REFUSED = 255  # ssh(1), for any failure of its own
ROLE = '[role.keeper]\nallow = [{ verbs = ["view", "stop"], names = ["dev/container/*"] }]\n'


@pytest.mark.parametrize("kind", [("ed25519",), ("ecdsa",), ("rsa", "-b", "2048")])
def test_kinds_of_keys(house: House, kind: tuple[str, ...]) -> None:
    key = house.console.key("key", *kind)
    house.console.allow(key, kind[0], "viewer")
    house.console.reload()
    for name in PROGRAMS:
        done = house.console.client(name).run(key, "ls")
        assert done.returncode == 0, (name, done)


def test_a_command_takes_the_place_of_any_other(house: House, client: Client) -> None:
    key = house.console.person(f"only-ls-{client.name}", "operator", 'command="ls --plain"')
    house.console.reload()
    for words in (("stop", "web"), ("ls; stop web",), ()):
        done = client.run(key, *words)
        assert done.returncode == 0, done.stderr
        assert b"dev/container/web" in done.stdout
    assert b"running" in client.run(house.vera, "ls", "web").stdout


def test_a_restricted_key_has_no_terminal(house: House, openssh: Client) -> None:
    key = house.console.person("restricted", "operator", "restrict")
    house.console.reload()
    with openssh.on_terminal(key) as terminal:
        terminal.sees("PTY allocation request failed")
    assert b"\x1b[?1049h" not in terminal.raw
    assert openssh.run(key, "ls").returncode == 0


@pytest.mark.parametrize("option", ['from="192.0.2.0/24,!127.0.0.1"', 'expiry-time="202001010000Z"'])
def test_a_key_out_of_its_place_or_time(house: House, openssh: Client, option: str) -> None:
    name = f"out-{len(house.console.keys.read_text())}"
    key = house.console.person(name, "operator", option)
    house.console.reload()
    begin = len(house.console.said())
    done = openssh.run(key, "ls")
    assert done.returncode == REFUSED
    assert done.stdout == b""
    why = "expired" if "expiry" in option else "may not come from 127.0.0.1"
    house.console.until(lambda: why in house.console.said(begin), "it to say why")


def test_certificates(house: House, openssh: Client) -> None:
    authority, person = house.console.key("authority"), house.console.key("certified")
    house.console.add_line(f'cert-authority,principals="ops",role="viewer" {authority.public} authority')
    house.console.reload()
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("-I", "good", "-n", "ops", "-V", "-1d:+1d"), 0, ""),
        (("-I", "expired", "-n", "ops", "-V", "20200101:20200102"), REFUSED, "expired"),
        (("-I", "other", "-n", "other", "-V", "-1d:+1d"), REFUSED, "ops is wanted"),
    ]
    for words, code, why in cases:
        certificate = authority.certify(person, *words)
        begin = len(house.console.said())
        done = openssh.run(person, "ls", more=("-o", f"CertificateFile={certificate}"))
        assert done.returncode == code, (words, done)
        if why:
            house.console.until(lambda begin=begin, why=why: why in house.console.said(begin), why)


def test_a_role_of_ones_own(house: House, openssh: Client) -> None:
    house.console.serve_toml.write_text(house.console.serve_toml.read_text() + ROLE)
    key = house.console.person("karl", "keeper")
    house.console.reload()
    done = openssh.run(key, "ls", "--plain")
    assert done.stdout == b"dev/container/web\n", done
    assert openssh.run(key, "stop", "guest").returncode in (64, 77)
    assert openssh.run(key, "stop", "web").returncode == 0
    assert openssh.run(key, "start", "web").returncode == 77
    assert openssh.run(house.olaf, "start", "web").returncode == 0


def test_a_reload_keeps_what_is_good(house: House, openssh: Client) -> None:
    console = house.console
    for path, text, where in (
        (console.serve_toml, "\n[role.odd]\nallow = [{ verb = 1 }]\n", "serve.toml:"),
        (console.keys, "ssh-ed25519 AAAA odd\n", "authorized_keys:"),
    ):
        good = path.read_text()
        path.write_text(good + text)
        begin = len(console.said())
        console.reload()
        assert where in console.said(begin)
        assert "Traceback" not in console.said(begin)
        assert openssh.run(house.vera, "ls").returncode == 0
        path.write_text(good)
        console.reload()


def test_a_key_that_is_taken_away_ends_its_sessions(house: House, openssh: Client) -> None:
    key = house.console.person("leaving", "operator")
    house.console.reload()
    with openssh.on_terminal(key) as terminal:
        terminal.sees("guest")
        kept = [line for line in house.console.keys.read_text().splitlines() if "leaving" not in line]
        house.console.keys.write_text("\n".join(kept) + "\n")
        house.console.reload()
        terminal.end()
    house.console.alone()
    assert openssh.run(key, "ls").returncode == REFUSED


# What no server starts with: one error, that says what and where


def directory(console: Console) -> str:
    console.keys.unlink()
    console.keys.mkdir()
    return str(console.keys)


def others_can_write(console: Console) -> str:
    console.keys.chmod(0o666)
    return "chmod go-w"


def no_file(console: Console) -> str:
    console.keys.unlink()
    return str(console.keys)


def weak(console: Console) -> str:
    console.allow(console.key("weak", "rsa", "-b", "1024"), "weak", "viewer")
    return "authorized_keys:2: "


def private(console: Console) -> str:
    console.add_line(console.key("private").path.read_text())
    return "private key"


def no_role(console: Console) -> str:
    console.add_line(f'role="vewer",name="anna" {console.key("other").public}')
    return "viewer"


def odd_option(console: Console) -> str:
    console.add_line(f'role="viewer",tunnel="1" {console.key("other").public} anna')
    return "authorized_keys:2"


def malformed_role(console: Console) -> str:
    console.serve_toml.write_text('[role.odd]\nabout = "x"\nallow = [{ verbs = ["fly"] }]\n')
    return "serve.toml:3"


def unknown_setting(console: Console) -> str:
    console.serve_toml.write_text("[serve]\nlogin_timeot = 3\n")
    return "login_timeout"


def readable_host_key(console: Console) -> str:
    path = console.key("host").path
    (console.paths.state / "ssh").mkdir()
    shutil.copy(path, console.paths.state / "ssh" / "host_ed25519")
    (console.paths.state / "ssh" / "host_ed25519").chmod(0o644)
    return "chmod 600"


@pytest.mark.parametrize(
    "spoil",
    [directory, others_can_write, no_file, weak, private, no_role, odd_option, malformed_role, unknown_setting,
     readable_host_key],
)  # fmt: skip
def test_a_server_that_does_not_start(spare: Console, spoil: Callable[[Console], str]) -> None:
    text = spoil(spare)
    for words in ((), ("--check",)):
        if words and spoil is readable_host_key:
            continue
        done = spare.cli.run(*spare.words(*words))
        assert done.returncode not in (0, 1), done
        assert done.stderr.count("error: ") == 1, done
        assert "Traceback" not in done.stderr
        assert text in done.stderr, done


def test_a_port_that_another_has(house: House, spare: Console) -> None:
    spare.port = house.console.port
    done = spare.cli.run(*spare.words())
    assert done.returncode not in (0, 1), done
    assert done.stderr.count("error: ") == 1
    assert str(spare.port) in done.stderr
