"""`vmtui plan` and `apply`: a profile through stdin, as a program."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.cli import Cli, interrupt
from tests.support.unread import unread_bytes

DEV = b"""
name = "dev"

[container.web]
backend = "fake"
image = "docker://web"

[vm.guest]
backend = "fake"
ready = { log = "is up", timeout = "20s" }
[vm.guest.fake]
log = ["guest is up"]
"""
SLOW = DEV.replace(b'["guest is up"]', b"[]")


def names(cli: Cli) -> list[str]:
    return cli.ok("ls", "--plain").splitlines()


def test_plan_and_apply(cli: Cli) -> None:
    planned = cli.run("plan", stdin=DEV)
    assert planned.returncode == 2, planned.stderr
    assert "container/web" in planned.stdout
    assert names(cli) == []
    applied = cli.run("apply", stdin=DEV)
    assert applied.returncode == 0, applied.stderr
    assert "2 ready, 2 changes" in applied.stderr
    assert names(cli) == ["dev/container/web", "dev/vm/guest"]
    assert cli.ok("plan", "-", stdin=DEV).strip() == "dev: no changes"
    assert "0 changes" in cli.run("apply", "-", stdin=DEV).stderr
    assert "2 removed" in cli.run("down", "dev").stderr


def test_records_are_those_of_a_profile(cli: Cli) -> None:
    file = cli.profile(DEV.decode())
    from_file = cli.records("--profile", file, "--plan", code=2)
    through_stdin = cli.records("plan", stdin=DEV, code=2)
    named = cli.records("plan", file, code=2)
    for records in (from_file, through_stdin, named):
        for record in records:
            record.pop("at")
            record.pop("elapsed_s", None)
    assert from_file == through_stdin == named
    summary = cli.records("apply", stdin=DEV)[-1]
    assert (summary["result"], summary["changes"], summary["exit_code"]) == ("converged", 2, 0)


def test_a_file_can_be_named(cli: Cli) -> None:
    file = cli.profile(DEV.decode(), "other")
    cli.ok("apply", file, "--only", "web")
    assert names(cli) == ["dev/container/web"]


def test_options_are_those_of_a_profile(cli: Cli) -> None:
    cli.ok("apply", "--only", "web", stdin=DEV)
    assert names(cli) == ["dev/container/web"]
    again = cli.records("apply", "--recreate", "web", stdin=DEV)
    assert [change["action"] for change in again[1]["changes"]] == ["recreate", "create"]
    cli.refused(124, "apply", "--timeout", "50ms", "--recreate", "guest", stdin=SLOW)
    cli.refused(124, "apply", "--timeout", "50ms", "--on-failure", "keep", "--recreate", "guest", stdin=SLOW)
    assert "dev/vm/guest" in names(cli)


def test_the_hint_runs_it_again_through_stdin(cli: Cli) -> None:
    said = cli.refused(124, "apply", "--timeout", "50ms", stdin=SLOW)
    assert "hint: vmtui apply --on-failure keep < FILE" in said
    assert names(cli) == []


def test_data_is_lost_only_with_yes(cli: Cli) -> None:
    disk = b'name = "dev"\n[disk.data]\nbackend = "fake"\nsize = "1GiB"\n'
    cli.ok("apply", stdin=disk)
    assert "--yes" in cli.refused(64, "apply", "--recreate", "data", stdin=disk)
    cli.ok("apply", "--recreate", "data", "--yes", stdin=disk)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", 'hint: add name = "dev"'),
        (b'[vm.x]\nbackend = "fake"\n', "stdin:1: name: a profile on stdin has no file to take its name from"),
        (b'name = "dev"\n[vm.x]\nbackend = "fake"\nmemroy = "1GiB"\n', "stdin:4: vm.x.memroy: unknown key"),
        (b'name = "dev"\n[vm.x\n', "stdin:2: not TOML"),
        (b'name = "dev"\n\xff\n', "stdin:2: not UTF-8"),
        (b'name = "dev"\n[sandbox.x]\nbackend = "fake"\nmodule = "x.wat"\n', "a profile on stdin has no folder"),
        (
            b'name = "dev"\n[container.x]\nbackend = "fake"\nimage = "dir:x"\n',
            "stdin:4: container.x.image: the path x is relative",
        ),
        (b'name = "dev"\n[container.x]\nbackend = "fake"\nimage = "x"\nvolumes = ["./x:/x"]\n', "the path ./x is"),
        (b'name = "dev"\n' + b"#" * (1 << 20), "stdin: larger than 1 MiB"),
        (b"x = " + b"[" * 10_000, "it is nested too deeply"),
    ],
)
def test_a_profile_that_cannot_be_used(cli: Cli, text: bytes, says: str) -> None:
    for verb in ("plan", "apply"):
        assert says in cli.refused(65, verb, stdin=text)
    assert names(cli) == []


def test_paths_in_full_are_as_good_as_in_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.wat").write_text("(module)")
    text = f'name = "dev"\n[sandbox.x]\nbackend = "fake"\nmodule = "{tmp_path}/x.wat"\n'
    cli.ok("apply", stdin=text.encode())
    assert names(cli) == ["dev/sandbox/x"]


def test_stdin_without_end_is_not_read_for_ever(cli: Cli) -> None:
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(
            cli.argv("apply"), stdin=endless, capture_output=True, env=cli.environment, timeout=120, check=False
        )
    assert done.returncode == 65
    assert b"larger than 1 MiB" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_reading(cli: Cli, number: signal.Signals) -> None:
    with subprocess.Popen(
        cli.argv("apply", "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=cli.environment,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(DEV)
        assert b'"version"' in process.stdout.readline()
        deadline = time.monotonic() + 120
        while unread_bytes(process.stdin):  # that it reads shows nowhere else
            assert time.monotonic() < deadline, "it does not read"
            time.sleep(0.01)
        process.send_signal(number)
        process.stdin.close()  # as a lost link ends it: what came so far would be a profile
        assert process.wait(60) == (130 if number == signal.SIGINT else 143)
    assert names(cli) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_was_begun_is_taken_back(cli: Cli, number: signal.Signals, tmp_path: Path) -> None:
    text = tmp_path / "dev.toml"
    text.write_bytes(SLOW)
    with (
        text.open("rb") as file,
        subprocess.Popen(
            cli.argv("apply"), stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environment
        ) as process,
    ):
        interrupt(process, number, after=b"waiting vm/guest")
        assert process.wait(60) == 143
    assert names(cli) == []


def test_from_a_terminal_it_says_how_to_end(cli: Cli) -> None:
    with cli.on_terminal("apply") as terminal:
        terminal.expect("ctrl.d ends it")
        terminal.send(DEV.replace(b"\n", b"\r") + b"\x04")
        terminal.expect("2 ready")
        assert terminal.end() == 0
