"""OpenSSH, dropbear's dbclient, PuTTY's plink and asyncssh: the panel, the verbs and a console, as people have them."""

from __future__ import annotations

import json

from tests.integration.ssh_clients.conftest import House
from tests.support.ssh_clients import Client

ROWS = ("guest", "web", "hello", "data", "lab")
# What a panel leaves a terminal with: the first screen, a cursor, no mouse, no kitty keyboard, no bracketed paste.
RESET = (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?1003l", b"\x1b[<u", b"\x1b[?2004l")
WRONG_PROFILE = b'name = "x"\n[container.web]\nimag = "docker://web"\n'


def test_the_panel(house: House, client: Client) -> None:
    with client.on_terminal(house.anna, rows=30, columns=100) as terminal:
        terminal.sees("▸ Resources")
        for name in ROWS:
            terminal.sees(name)
        terminal.send(b"2")
        terminal.sees("▸ Logs")
        terminal.send(b"1")
        terminal.sees("▸ Resources")
        terminal.resize(40, 133)
        terminal.until(lambda _: fills(terminal.screen(), rows=40, columns=133))
        terminal.send(b"q")
        assert terminal.end() == 0
    for reset in RESET:
        assert reset in terminal.raw, reset
    assert terminal.stream.wrong == []


def fills(screen: str, rows: int, columns: int) -> bool:
    """The title reaches to its right end, and the keys are at its bottom."""
    lines = screen.split("\n")
    return len(lines) == rows and len(lines[0]) == columns - 1 and "Quit" in lines[-1]


def test_a_verb_on_pipes(house: House, client: Client) -> None:
    done = client.run(house.olaf, "ls", "--json")
    assert done.returncode == 0, done.stderr
    assert {status["ref"]["name"] for status in json.loads(done.stdout)} >= {"guest", "web"}
    assert b"\x1b" not in done.stdout + done.stderr


def test_without_a_verb_and_without_a_terminal_it_is_the_list(house: House, client: Client) -> None:
    done = client.run(house.vera)
    assert done.returncode == 0, done.stderr
    assert "dev/container/web" in done.stdout.decode()


def test_a_profile_through_stdin(house: House, client: Client) -> None:
    name = client.name
    wanted = f'name = "{name}"\n[container.one]\nbackend = "fake"\nimage = "docker://one"\n'.encode()
    planned = client.run(house.olaf, "plan", "--json", stdin=wanted)
    assert planned.returncode == 2, planned.stderr
    records = [json.loads(line) for line in planned.stdout.splitlines()]
    assert records[0]["event"] == "version"
    assert records[-1]["result"] == "changes"
    applied = client.run(house.olaf, "apply", stdin=wanted)
    assert applied.returncode == 0, applied.stderr
    assert f"{name}/container/one" in applied.stdout.decode()
    again = client.run(house.olaf, "plan", stdin=wanted)
    assert again.returncode == 0, again.stderr
    gone = client.run(house.olaf, "down", name, "--json")
    assert gone.returncode == 0, gone.stderr


def test_what_is_wrong_has_its_exit_code(house: House, client: Client) -> None:
    cases = (
        (house.olaf, ("frobnicate",), b"", 64, "there is no verb"),
        (house.olaf, ("stop", "nobody"), b"", 64, "there is no resource"),
        (house.olaf, ("apply",), WRONG_PROFILE, 65, "stdin:3"),
        (house.vera, ("stop", "web"), b"", 77, "viewer"),
        (house.vera, ("apply",), WRONG_PROFILE, 77, "viewer"),
    )
    for key, command, stdin, code, text in cases:
        done = client.run(key, *command, stdin=stdin)
        assert done.returncode == code, (command, done)
        assert text in done.stderr.decode(), (command, done)
        assert done.stdout == b"", (command, done)
        assert done.stderr.count(b"error: ") == 1, (command, done)


def test_a_console_and_out_of_it(house: House, client: Client) -> None:
    with client.on_terminal(house.olaf, "console", "guest", rows=20, columns=70) as terminal:
        terminal.sees(":/#")
        terminal.send(b"echo on${x}ce\r")
        terminal.sees("\nonce")
        terminal.send(b"\x03\x1d")
        assert terminal.end() == 0
    assert "detached" in terminal.screen()


def test_a_command_inside_has_its_own_exit_code(house: House, client: Client) -> None:
    done = client.run(house.olaf, "exec", "web", "--", "echo", "inside")
    assert (done.returncode, done.stdout) == (0, b"inside\n"), done
    assert client.run(house.olaf, "exec", "web", "--", "sh", "-c", "'exit 7'").returncode == 7


def test_a_change_shows_where_the_viewers_are_looked_for(house: House, openssh: Client) -> None:
    """What test_viewer compares would tell."""
    before = house.console.contents()
    for verb in ("stop", "start"):
        assert openssh.run(house.olaf, verb, "web").returncode == 0
        changed = {name for name, digest in house.console.contents().items() if before.get(name) != digest}
        assert changed >= {"state.db", "s/vmtui/fake-container.jsonl"}
