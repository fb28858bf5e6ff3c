"""`vmtui approvals`, `approve` and `deny`: what waits for a second person, over simulated resources."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.cli import Cli
from tests.support.visitors import Visitor
from vmtui.core.policy import Allow, Role, Verb

WEB = b'name = "dev"\n[container.web]\nbackend = "fake"\nimage = "docker://web"\n'
ASKS = Role(name="careful", allow=(Allow(verbs=("view", "stop", "exec", "change", "create", "delete", "start")),),
            approval=(Verb.STOP, Verb.EXEC, Verb.CREATE))  # fmt: skip
AGREES = Role(name="second", allow=(Allow(verbs=("view", "approve")),))


@pytest.fixture
def dev(cli: Cli) -> Cli:
    cli.ok("apply", stdin=WEB)
    return cli


@contextmanager
def asking(visitor: Visitor, cli: Cli, *argv: str, stdin: bytes = b"") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that waits, and the number of what it asks for."""
    with subprocess.Popen(
        visitor.argv(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=cli.environment, cwd=cli.folder,
    ) as process:  # fmt: skip
        try:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write(stdin)
            process.stdin.close()
            for line in process.stderr:
                if match := re.search(rb"waits for a second person: request (\d+)", line):
                    yield process, match[1].decode()
                    break
            else:
                raise AssertionError(f"it did not wait, and ended with {process.wait()}")
        finally:
            if process.poll() is None:
                process.kill()


def phase(cli: Cli) -> str:
    shown: str = json.loads(cli.ok("inspect", "web", "--json"))["status"]["phase"]
    return shown


def test_nothing_waits(dev: Cli) -> None:
    assert "nothing waits" in dev.run("approvals").stderr
    assert dev.ok("approvals", "--json") == "[]\n"
    assert "no request 7 waits" in dev.refused(64, "approve", "7")
    dev.refused(64, "approve", "web")


def test_a_second_person_agrees(dev: Cli) -> None:
    anna, bert = Visitor(dev, ASKS), Visitor(dev, AGREES, name="bert")
    with asking(anna, dev, "stop", "web") as (process, number):
        assert phase(dev) == "running"
        shown = bert.ok("approvals").splitlines()
        assert shown[0].startswith(f"{number}  anna  stop dev/container/web  ")
        assert "SHA256:anna" in shown[0]
        assert shown[1] == "    stop dev/container/web"
        (told,) = json.loads(bert.ok("approvals", "--json"))
        assert (told["id"], told["person"], told["verb"]) == (int(number), "anna", "stop")
        assert f"request {number}: approved" in bert.run("approve", number).stderr
        assert process.wait(60) == 0
    assert phase(dev) == "exited" or phase(dev) == "stopped"
    assert ("stop", "asked") in anna.notes()
    assert ("approve", "approved") in bert.notes()
    bert.refused(64, "approve", number)


def test_a_second_person_does_not(dev: Cli) -> None:
    with asking(Visitor(dev, ASKS), dev, "stop", "web") as (process, number):
        assert json.loads(Visitor(dev, AGREES, name="bert").ok("deny", number, "--json")) == {
            "granted": False,
            "id": int(number),
        }
        assert process.wait(60) == 77
    assert phase(dev) == "running"


def test_nobody_is_a_second_person_to_themselves(dev: Cli) -> None:
    both = Role(name="both", allow=(*ASKS.allow, *AGREES.allow), approval=ASKS.approval)
    anna = Visitor(dev, both)
    with asking(anna, dev, "stop", "web") as (process, number):
        assert "is yours" in anna.refused(77, "approve", number)
        assert number in anna.ok("approvals")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert phase(dev) == "running"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_who_asked_and_left_wants_it_no_more(dev: Cli, number: signal.Signals, code: int) -> None:
    with asking(Visitor(dev, ASKS), dev, "stop", "web") as (process, request):
        process.send_signal(number)
        assert process.wait(60) == code
    assert dev.ok("approvals", "--json") == "[]\n"
    dev.refused(64, "approve", request)
    assert phase(dev) == "running"


def test_the_owner_can_answer(dev: Cli) -> None:
    with asking(Visitor(dev, ASKS), dev, "exec", "web", "--", "true") as (process, number):
        dev.ok("approve", number)
        assert process.wait(60) == 0


def test_a_profile_waits_with_all_that_it_would_do(dev: Cli) -> None:
    more = WEB + b'[container.new]\nbackend = "fake"\nimage = "docker://new"\n'
    with asking(Visitor(dev, ASKS), dev, "apply", stdin=more) as (process, number):
        shown = dev.ok("approvals")
        assert "create dev/container/new" in shown
        assert "docker://new" in shown
        dev.ok("approve", number)
        assert process.wait(60) == 0
    assert "dev/container/new" in dev.ok("ls", "--plain")


def test_who_may_not_agree_does_not_see_it(dev: Cli) -> None:
    elsewhere = Role(name="elsewhere", allow=(Allow(verbs=("view", "approve"), names=("other/*",)),))
    with asking(Visitor(dev, ASKS), dev, "stop", "web") as (process, number):
        assert Visitor(dev, elsewhere, name="carl").ok("approvals", "--json") == "[]\n"
        Visitor(dev, elsewhere, name="carl").refused(64, "approve", number)
        for role in ("viewer", "operator"):
            Visitor(dev, role, name="dora").refused(77, "approve", number)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
