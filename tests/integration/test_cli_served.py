"""The verbs as the process of a session runs them: what each role gets, over simulated resources."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.support.cli import Cli, Terminal, interrupt
from tests.support.visitors import Visitor
from vmtui.core.policy import Allow, Role
from vmtui.headless.remote import TELL

DEV = b"""
name = "dev"
[disk.data]
backend = "fake"
size = "1GiB"
[vm.guest]
backend = "fake"
disks = ["data"]
[container.web]
backend = "fake"
image = "docker://web"
labels = { tier = "front" }
[container.web.fake]
log = ["hello\\u001b]0;title\\u0007 there"]
"""
MORE = b'name = "more"\n[container.new]\nbackend = "fake"\nimage = "docker://new"\n'
SLOW = MORE + b'ready = { log = "never" }\n'
OF_DEV = Role(name="dev-only", allow=(Allow(verbs=("view", "logs", "start", "stop"), names=("dev/*",)),))
MAKER = Role(name="maker", allow=(Allow(verbs=("view", "create", "start"), names=("more/*",)),))


@pytest.fixture
def dev(cli: Cli) -> Cli:
    cli.ok("apply", stdin=DEV)
    cli.ok("apply", stdin=b'name = "secret"\n[vm.hidden]\nbackend = "fake"\n')
    return cli


def phases(cli: Cli) -> dict[str, str]:
    return {
        "/".join(each["ref"][part] for part in ("profile", "kind", "name")): each["phase"]
        for each in json.loads(cli.ok("ls", "--json"))
    }


def test_a_viewer_looks(dev: Cli) -> None:
    viewer = Visitor(dev, "viewer")
    assert len(viewer.ok("ls", "--plain").splitlines()) == 4
    assert len(json.loads(viewer.ok("ls", "--json"))) == 4
    assert [line.split()[:3] for line in viewer.ok().splitlines()] == [
        line.split()[:3] for line in viewer.ok("ls").splitlines()
    ]
    assert "dev/vm/guest" in viewer.ok("inspect", "guest")
    assert json.loads(viewer.ok("stats", "guest", "--json"))["ref"]["name"] == "guest"
    assert "create done" in viewer.ok("events")
    assert viewer.ok("plan", stdin=DEV) == "dev: no changes\n"
    viewer.ok("plan", stdin=MORE, code=2)
    assert "KIND" in viewer.ok("backends")


def test_a_viewer_changes_nothing(dev: Cli) -> None:
    viewer = Visitor(dev, "viewer")
    before = phases(dev)
    for argv in (
        ["stop", "guest"], ["start", "web"], ["restart", "web"], ["kill", "web"], ["pause", "web"], ["resume", "web"],
        ["rm", "web"], ["rm", "--purge", "--yes", "disk/data"], ["exec", "web", "--", "true"], ["console", "guest"],
        ["apply"], ["apply", "--yes", "--recreate"], ["down", "dev"], ["down", "dev", "--purge", "--yes"],
        ["--profile", "dev.toml"], ["--demo"], ["completion", "bash"], ["reap", "dev/vm/guest"], ["serve"],
        ["recordings", "rm", "x"], ["audit", "ls"], ["approve", "1"], ["deny", "1"],
    ):  # fmt: skip
        assert "the role viewer may not" in viewer.refused(77, *argv, stdin=DEV)
    assert phases(dev) == before
    assert {result for _, result in viewer.notes()} == {"denied"}


def test_an_operator_runs_things_and_purges_nothing(dev: Cli) -> None:
    operator = Visitor(dev, "operator", name="bert")
    operator.ok("stop", "guest")
    assert phases(dev)["dev/vm/guest"] == "stopped"
    assert ("stop", "done") in operator.notes()
    assert "bert over ssh" in dev.ok("events")
    operator.ok("apply", stdin=MORE)
    assert phases(dev)["more/container/new"] == "running"
    operator.refused(77, "down", "dev", "--purge", "--yes")
    operator.ok("down", "more")
    assert "dev/disk/data" in phases(dev)


def test_who_came_by_the_web_is_named_so(dev: Cli) -> None:
    Visitor(dev, "operator", name="carl", origin="web 127.0.0.1").ok("stop", "web")
    assert "carl over the web" in dev.ok("events")


def test_what_a_role_does_not_see_is_not_there(dev: Cli) -> None:
    limited = Visitor(dev, OF_DEV)
    assert "secret" not in limited.ok("ls")
    assert "secret" not in limited.ok("ls", "--plain")
    assert "secret" not in limited.ok("ls", "label:tier", "kind:container")
    assert "secret" not in limited.ok("events")
    assert "there is no" in limited.refused(64, "inspect", "secret/vm/hidden")
    said = limited.refused(64, "stop", "hiden")
    assert "hidden" not in said
    absent = limited.refused(64, "stop", "secret/vm/nothing")
    there = limited.refused(64, "stop", "secret/vm/hidden")
    assert absent.replace("nothing", "hidden") == there
    limited.ok("stop", "web")


def test_a_role_may_make_what_it_may_not_remove(dev: Cli) -> None:
    maker = Visitor(dev, MAKER)
    maker.ok("apply", stdin=MORE)
    assert maker.ok("ls", "--plain") == "more/container/new\n"
    maker.refused(77, "down", "more")
    maker.refused(77, "apply", stdin=b'name = "dev"\n[container.x]\nbackend = "fake"\nimage = "x"\n')
    assert "dev/container/x" not in phases(dev)


def test_a_log_does_not_reach_the_terminal_that_may_be_there(dev: Cli) -> None:
    assert "\x1b]0;title" in dev.ok("logs", "web")
    assert Visitor(dev, "viewer").ok("logs", "web").splitlines()[0].endswith("hello there")
    assert "\\u001b]0;title" in Visitor(dev, "viewer").ok("logs", "web", "--json")


def test_paths_of_the_host_are_refused(dev: Cli) -> None:
    text = b'name = "more"\n[container.x]\nbackend = "fake"\nimage = "x"\nvolumes = ["/etc:/etc"]\n'
    Visitor(dev, "operator").refused(77, "apply", stdin=text)
    assert not [name for name in phases(dev) if name.startswith("more")]
    Visitor(dev, "admin", name="ada").ok("apply", stdin=text)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["frob"], 64), (["ls", "kidn:x"], 64), (["stop"], 64), (["inspect", "nothing"], 64), (["stop", "--frob"], 64),
        (["stop", "disk/data"], 71), (["rm", "disk/data"], 64),
    ],
)  # fmt: skip
def test_errors_are_those_of_the_verbs(dev: Cli, argv: list[str], code: int) -> None:
    Visitor(dev, "operator").refused(code, *argv)


def test_help_on_stdout(dev: Cli) -> None:
    viewer = Visitor(dev, "viewer")
    assert "ssh HOST help VERB" in viewer.ok("--help") == viewer.ok("help")
    assert "usage: vmtui ls" in viewer.ok("ls", "--help")
    assert "vmtui stop" not in viewer.ok("--help")


def test_hints_name_no_command_of_the_host(dev: Cli) -> None:
    said = Visitor(dev, "viewer").refused(64, "inspect", "nothing")
    assert "hint: vmtui ls" in said
    dev.paths.state.joinpath("state.db").write_bytes(b"damaged" * 1000)
    said = Visitor(dev, "viewer").run("ls").stderr
    assert TELL in said or "hint" not in said


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_lost_link_takes_back_what_was_begun(dev: Cli, number: signal.Signals) -> None:
    before = phases(dev)
    file = dev.folder / "slow.toml"
    file.write_bytes(SLOW)
    operator = Visitor(dev, "operator")
    with (
        file.open("rb") as stdin,
        subprocess.Popen(
            operator.argv("apply"), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dev.environment
        ) as process,
    ):
        interrupt(process, number, after=b"waiting container/new")
        assert process.wait(60) == 143
    assert phases(dev) == before


def test_a_terminal_that_hangs_up_takes_back_too(dev: Cli) -> None:
    before = phases(dev)
    operator = Visitor(dev, "operator")
    file = dev.folder / "slow.toml"
    file.write_bytes(SLOW)
    argv = ["sh", "-c", f'exec "$@" < {file}', "sh", *operator.argv("apply")]
    with Terminal(argv, dev.environment, dev.folder, 30, 100) as terminal:
        terminal.expect("waiting for container/new")
        terminal.hang_up()
        assert terminal.process.wait(60) == 143
    assert phases(dev) == before


def test_line_by_line_offers_what_the_role_has(dev: Cli) -> None:
    lines = Visitor(dev, "viewer").ok("--plain", stdin=b"help\nstop guest\nls kind:vm\nquit\n").splitlines()
    assert not [line for line in lines if line.startswith("stop REF")]
    assert [line for line in lines if line.startswith("logs REF")]
    assert "error: the role viewer may not stop" in lines
    assert [line for line in lines if line.startswith("dev/vm/guest: running")]
