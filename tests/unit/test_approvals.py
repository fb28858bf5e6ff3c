"""A second person: who may be one, and what exactly was agreed to."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.acting import Notes, acting, person, role
from tests.support.fakes import open_fakes, picture, profile
from tests.support.golden import ROOT
from vmtui.core.backend import ExecRequest
from vmtui.core.errors import Denied, NotFound
from vmtui.core.events import Event, StepProgressed
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.policy import BUILTIN, Allow, Person, Role, Verb
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, Spec, VmSpec
from vmtui.core.units import Size
from vmtui.engine.approvals import Approvals, Request, State
from vmtui.engine.authority import Authority
from vmtui.engine.store import Store
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths

WEB = Ref("dev", Kind.CONTAINER, "web")
SPECS: dict[str, Spec] = {
    "network/lab": NetworkSpec(backend="fake"),
    "disk/data": DiskSpec(backend="fake", size=Size(1 << 20)),
    "container/web": ContainerSpec(backend="fake", image="x", networks=("lab",)),
    "vm/guest": VmSpec(backend="fake", disks=("data",), networks=("lab",)),
}
ALL = (Allow(verbs=("*",)),)
ASKS: Role = role(*ALL, approval=(Verb.STOP, Verb.DELETE, Verb.EXEC, Verb.CONSOLE, Verb.CREATE))
APPROVER = BUILTIN["admin"]


def quiet(event: Event) -> None:
    """Nobody listens."""


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = open_fakes(paths)
    await opened.apply(await opened.plan(profile("dev", SPECS)), emit=quiet)
    yield opened
    await opened.aclose()


async def asked(by: Workspace, act: Awaitable[Any]) -> tuple[asyncio.Task[Any], Request]:
    """An act that waits, and its request."""
    task = asyncio.ensure_future(act)
    async with asyncio.timeout(60):
        while not (found := by.approvals()):
            if task.done():
                await task
            await asyncio.sleep(0.01)
    assert isinstance(task, asyncio.Task)
    return task, found[-1]


async def phase(workspace: Workspace) -> Phase:
    return (await workspace.inspect(WEB)).phase


async def test_it_waits_until_another_agrees(workspace: Workspace) -> None:
    notes, theirs = Notes(), Notes()
    told: list[Event] = []
    anna, bert = acting(workspace, ASKS, notes=notes), acting(workspace, APPROVER, "bert", theirs)
    task, request = await asked(bert, anna.act(WEB, Action.STOP, emit=told.append, grace_s=0.0))
    assert (request.who, request.key, request.verb, request.refs) == ("anna", "SHA256:anna", "stop", (WEB,))
    assert request.about == ("stop dev/container/web",)
    assert await phase(workspace) is Phase.RUNNING
    await asyncio.sleep(0.3)
    bert.answer(request.id, True)
    assert (await task).phase is Phase.STOPPED
    assert bert.approvals() == ()
    assert notes.results == [("stop", "asked"), ("stop", "approved"), ("stop", "done")]
    assert "by bert" in notes.taken[1][3]
    assert theirs.taken == [("approve", (WEB,), "approved", f"request {request.id} of anna: stop")]
    (first, *_) = told
    assert isinstance(first, StepProgressed)
    assert f"waits for a second person: request {request.id}, " in first.message


async def test_one_consent_is_for_one_act(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    task, request = await asked(bert, anna.consent(Verb.STOP, [WEB]))
    bert.answer(request.id, True)
    await task
    await anna.consent(Verb.STOP, [WEB])  # it is there already
    async with anna.changing("a test"):
        await anna.carry_out(WEB, Action.STOP, emit=quiet, grace_s=0.0)
        await anna.carry_out(WEB, Action.START, emit=quiet)
        with pytest.raises(Denied, match="a second person must agree first"):
            await anna.carry_out(WEB, Action.STOP, emit=quiet, grace_s=0.0)
        with pytest.raises(Denied, match="a second person must agree first"):
            await anna.carry_out(WEB, Action.DELETE, emit=quiet)
    assert await phase(workspace) is Phase.RUNNING
    with pytest.raises(NotFound):
        bert.answer(request.id, True)


async def test_consent_to_deleting_is_none_to_purging(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    task, request = await asked(bert, anna.consent(Verb.DELETE, [WEB]))
    bert.answer(request.id, True)
    await task
    with pytest.raises(Denied, match="must agree first"):
        await anna.carry_out(WEB, Action.DELETE, emit=quiet, purge=True)


async def test_a_refusal(workspace: Workspace) -> None:
    notes = Notes()
    anna, bert = acting(workspace, ASKS, notes=notes), acting(workspace, APPROVER, "bert")
    task, request = await asked(bert, anna.act(WEB, Action.STOP, emit=quiet))
    bert.answer(request.id, False)
    with pytest.raises(Denied, match="stop dev/container/web: bert does not agree"):
        await task
    assert await phase(workspace) is Phase.RUNNING
    assert notes.results == [("stop", "asked"), ("stop", "denied")]


@pytest.mark.parametrize(
    "who",
    [person("anna"), Person(name="bert", key="SHA256:anna"), Person(name="anna", key="SHA256:other"),
     Person(name="bert", key="")],
    ids=["itself", "the same key", "the same name", "no key"],
)  # fmt: skip
async def test_nobody_is_a_second_person_to_themselves(workspace: Workspace, who: Person) -> None:
    anna, same = acting(workspace, ASKS), workspace.seen_by(Authority(who, APPROVER))
    task, request = await asked(same, anna.act(WEB, Action.STOP, emit=quiet))
    with pytest.raises(Denied, match="is yours: another person must agree"):
        same.answer(request.id, True)
    await asyncio.sleep(0.5)
    assert not task.done()
    same.answer(request.id, False)
    with pytest.raises(Denied, match=r"was withdrawn|does not agree"):
        await task
    assert await phase(workspace) is Phase.RUNNING


async def test_who_may_not_approve_it_does_not_see_it(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    task, request = await asked(bert, anna.act(WEB, Action.STOP, emit=quiet))
    for who in (
        BUILTIN["viewer"],
        BUILTIN["operator"],
        role(Allow(verbs=("view",)), Allow(verbs=("approve",), names=("prod/*",))),
        role(Allow(verbs=("approve",))),
        role(Allow(verbs=("view", "approve"), own=True)),
    ):
        assert workspace.seen_by(Authority(Person(name="carl"), who)).approvals() == ()
        carl = acting(workspace, who, "carl")
        assert carl.approvals() == ()
        with pytest.raises(NotFound):
            carl.answer(request.id, True)
    assert [found.id for found in anna.approvals()] == [request.id]
    assert [found.id for found in workspace.approvals()] == [request.id]
    workspace.answer(request.id, True)  # the owner of it all is somebody else too
    assert (await task).phase is Phase.STOPPED


async def test_who_approves_must_be_allowed_it_on_what_comes(workspace: Workspace) -> None:
    """Of what does not exist yet the labels count that it would have."""
    anna = acting(workspace, ASKS)
    front = role(Allow(verbs=("view",)), Allow(verbs=("approve",), labels={"tier": "front"}))
    new = {**SPECS, "container/new": ContainerSpec(backend="fake", image="x", labels={"tier": "back"})}
    task, request = await asked(anna, anna.apply(await anna.plan(profile("dev", new)), emit=quiet))
    assert acting(workspace, front, "bert").approvals() == ()
    anna.answer(request.id, False)
    with pytest.raises(Denied):
        await task


async def test_it_is_withdrawn_when_who_asked_leaves(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    task, request = await asked(bert, anna.act(WEB, Action.STOP, emit=quiet))
    task.cancel()
    await asyncio.wait([task])
    assert bert.approvals() == ()
    with pytest.raises(NotFound):
        bert.answer(request.id, True)


async def test_it_is_withdrawn_when_the_process_that_asked_is_killed(workspace: Workspace) -> None:
    bert = acting(workspace, APPROVER, "bert")
    program = f"from {__name__} import ask_and_stay; ask_and_stay({str(workspace.store.path)!r})"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    number = int(await process.stdout.readline())
    assert [request.id for request in bert.approvals()] == [number]
    process.kill()
    await process.wait()
    assert bert.approvals() == ()
    with pytest.raises(NotFound):
        bert.answer(number, True)


def ask_and_stay(path: str) -> None:
    """A process that asks, and stays until it is killed."""
    print(Approvals(Store(Path(path))).ask(blank()).id, flush=True)
    time.sleep(600)


def blank(who: str = "anna") -> Request:
    return Request(who=who, key=f"SHA256:{who}", origin="", verb="stop", refs=(WEB,), targets=(), about=(), digest="")


async def test_it_lapses(workspace: Workspace) -> None:
    now = 1000.0
    approvals = Approvals(workspace.store, clock=lambda: now)
    first, second = approvals.ask(blank()), approvals.ask(blank())
    assert approvals.answer(second.id, "bert", granted=True)
    assert len(approvals.waiting()) == 1
    now += 600
    assert approvals.waiting() == ()
    assert approvals.state(first.id) == (State.LAPSED, "")
    assert not approvals.answer(first.id, "bert", granted=True)
    assert approvals.state(second.id)[0] is State.LAPSED
    assert not approvals.use(second.id)


async def test_who_waited_in_vain_is_told(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    task, request = await asked(bert, anna.act(WEB, Action.STOP, emit=quiet))
    workspace.store.connection.execute("update approval set expires_at = 1 where id = ?", (request.id,))
    with pytest.raises(Denied, match="nobody agreed in time"):
        await task


async def test_the_first_answer_counts(workspace: Workspace) -> None:
    approvals = Approvals(workspace.store)
    request = approvals.ask(blank())
    assert approvals.answer(request.id, "bert", granted=False)
    assert not approvals.answer(request.id, "carl", granted=True)
    assert approvals.state(request.id) == (State.DENIED, "bert")
    assert not approvals.use(request.id)


async def test_nobody_asks_without_end(workspace: Workspace) -> None:
    approvals = Approvals(workspace.store)
    for _ in range(20):
        approvals.ask(blank())
    with pytest.raises(Denied, match="20 requests of anna wait"):
        approvals.ask(blank())
    approvals.ask(blank("carl"))


async def test_what_changed_since_is_not_done(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    task, request = await asked(bert, anna.consent(Verb.DELETE, [WEB]))
    bert.answer(request.id, True)
    await task
    changed = SPECS | {"container/web": ContainerSpec(backend="fake", image="other", networks=("lab",))}
    await workspace.apply(await workspace.plan(profile("dev", changed)), emit=quiet)
    before = await picture(workspace)
    with pytest.raises(Denied, match="it has changed since a second person agreed"):
        await anna.carry_out(WEB, Action.DELETE, emit=quiet)
    assert await picture(workspace) == before


async def test_a_plan_is_agreed_to_as_it_is(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    new = SPECS | {"container/new": ContainerSpec(backend="fake", image="x", command=("rm", "-rf", "/"))}
    plan = await anna.plan(profile("dev", new))
    task, request = await asked(bert, anna.consent_plan(plan))
    assert request.verb == "create"
    assert request.about[0] == "create dev/container/new: it is new"
    assert '["rm","-rf","/"]' in request.about[1]
    bert.answer(request.id, True)
    await task
    (change,) = plan.changes
    assert change.desired is not None
    worse = msgspec.structs.replace(change.desired, spec=msgspec.structs.replace(change.desired.spec, image="y"))
    other = msgspec.structs.replace(plan, changes=(msgspec.structs.replace(change, desired=worse),))
    task, request = await asked(bert, anna.apply(other, emit=quiet))
    bert.answer(request.id, False)
    with pytest.raises(Denied):
        await task
    assert (await anna.apply(plan, emit=quiet)).result == "converged"


async def test_a_plan_that_others_overtook_is_void(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    plan = await anna.plan_down("dev", purge=False)
    task, request = await asked(bert, anna.consent_plan(plan))
    bert.answer(request.id, True)
    await task
    changed = SPECS | {"container/web": ContainerSpec(backend="fake", image="other", networks=("lab",))}
    await workspace.apply(await workspace.plan(profile("dev", changed)), emit=quiet)
    task, request = await asked(bert, anna.apply(plan, emit=quiet))  # asked anew: what was given is void
    bert.answer(request.id, False)
    with pytest.raises(Denied, match="bert does not agree"):
        await task
    assert await phase(workspace) is Phase.RUNNING


async def test_a_command_is_agreed_to_as_it_is(workspace: Workspace) -> None:
    anna, bert = acting(workspace, ASKS), acting(workspace, APPROVER, "bert")
    task, request = await asked(bert, anna.exec(WEB, ExecRequest(argv=("echo", "a b"))))
    assert request.about == ("exec dev/container/web: echo 'a b'",)
    bert.answer(request.id, True)
    session = await task
    await session.aclose()
    task, request = await asked(bert, anna.exec(WEB, ExecRequest(argv=("rm", "-rf", "/"))))
    bert.answer(request.id, False)
    with pytest.raises(Denied):
        await task
    task, request = await asked(bert, anna.console(WEB))
    bert.answer(request.id, False)
    with pytest.raises(Denied):
        await task


async def test_as_whom_and_with_what_a_command_runs_is_agreed_to_and_noted(workspace: Workspace) -> None:
    notes = Notes()
    anna, bert = acting(workspace, ASKS, notes=notes), acting(workspace, APPROVER, "bert")
    said = "-u root -w /srv -e 'LD_PRELOAD=/tmp/a b' -- id"
    wanted = ExecRequest(argv=("id",), user="root", working_dir="/srv", environment=(("LD_PRELOAD", "/tmp/a b"),))
    task, request = await asked(bert, anna.exec(WEB, ExecRequest(argv=("id",))))
    bert.answer(request.id, granted=True)
    await (await task).aclose()
    task, request = await asked(bert, anna.exec(WEB, wanted))
    assert request.about == (f"exec dev/container/web: {said}",)
    bert.answer(request.id, granted=True)
    await (await task).aclose()
    assert ("exec", (WEB,), "done", said) in notes.taken


async def test_what_is_not_permitted_is_not_asked_for(workspace: Workspace) -> None:
    may_not = role(Allow(verbs=("view",)), approval=(Verb.STOP,))
    with pytest.raises(Denied, match="the role custom may not stop"):
        await acting(workspace, may_not).act(WEB, Action.STOP, emit=quiet)
    assert workspace.approvals() == ()


async def test_a_whole_profile_cannot_hide_what_it_does(workspace: Workspace) -> None:
    anna = acting(workspace, ASKS)
    new = {
        f"container/c{number}": ContainerSpec(backend="fake", image="x", environment={"A": "x" * 3000})
        for number in range(2)
    }
    task, request = await asked(anna, anna.apply(await anna.plan(profile("dev", SPECS | new)), emit=quiet))
    assert request.about[0] == "too much to show: this is not all of it"
    anna.answer(request.id, False)
    with pytest.raises(Denied):
        await task
