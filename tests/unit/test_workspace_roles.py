"""Every method of a workspace in the name of others: who only looks changes nothing, what is hidden is not there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.support.acting import Notes, acting, role
from tests.support.fakes import open_fakes, picture, profile
from vmtui.core.backend import ExecRequest
from vmtui.core.errors import Denied, Fault, NotFound
from vmtui.core.events import Event
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.policy import BUILTIN, Allow, Role, Verb
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, Spec, VmSpec
from vmtui.core.units import Size
from vmtui.engine.operations import Outcome
from vmtui.engine.plan import make_down_plan
from vmtui.engine.workspace import WAITS, Workspace
from vmtui.host.paths import Paths

WEB = Ref("dev", Kind.CONTAINER, "web")
VM = Ref("dev", Kind.VM, "guest")
LAB = Ref("dev", Kind.NETWORK, "lab")
DATA = Ref("dev", Kind.DISK, "data")
SECRET = Ref("prod", Kind.CONTAINER, "secret")
SPECS: dict[str, Spec] = {
    "network/lab": NetworkSpec(backend="fake"),
    "disk/data": DiskSpec(backend="fake", size=Size(1 << 20)),
    "container/web": ContainerSpec(backend="fake", image="x", networks=("lab",), labels={"tier": "front"}),
    "vm/guest": VmSpec(backend="fake", disks=("data",), networks=("lab",)),
}
MORE = {**SPECS, "container/new": ContainerSpec(backend="fake", image="x")}
PROD: dict[str, Spec] = {"container/secret": ContainerSpec(backend="fake", image="x")}

NOBODY = role(name="nobody")
STRANGER = role(Allow(verbs=("*",), names=("other/*",)), name="stranger")
DEV = role(Allow(verbs=("*",), names=("dev/*",)), name="dev")


def quiet(event: Event) -> None:
    """Nobody listens."""


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    """Two profiles that the owner has made."""
    opened = open_fakes(paths)
    for name, specs in (("dev", SPECS), ("prod", PROD)):
        outcome = await opened.apply(await opened.plan(profile(name, specs)), emit=quiet)
        assert outcome.result == "converged"
    yield opened
    await opened.aclose()


async def drained(lines: AsyncIterator[Any]) -> list[Any]:
    return [line async for line in lines]


async def whole_plan(workspace: Workspace) -> Any:
    """One that the owner would carry out; made of what there is, whoever asks for it."""
    rows = workspace.store.of_profile("dev")
    observed = await workspace._observed("dev")
    return make_down_plan("dev", rows, observed, purge=True)


async def changed(workspace: Workspace) -> None:
    async with workspace.changing("a test"):
        pass


Call = Callable[[Workspace], Awaitable[Any]]


def plain(call: Callable[[Workspace], Any]) -> Call:
    async def run(workspace: Workspace) -> Any:
        return call(workspace)

    return run


def act(action: Action, purge: bool = False) -> Call:
    return lambda w: w.act(VM if action is not Action.DELETE else WEB, action, emit=quiet, purge=purge, grace_s=0.0)


# What changes something, each method at least once, with the verb it takes.
ACTS: dict[str, tuple[Verb, Call]] = {
    "act start": (Verb.START, act(Action.START)),
    "act stop": (Verb.STOP, act(Action.STOP)),
    "act restart": (Verb.RESTART, act(Action.RESTART)),
    "act kill": (Verb.KILL, act(Action.KILL)),
    "act pause": (Verb.PAUSE, act(Action.PAUSE)),
    "act resume": (Verb.RESUME, act(Action.RESUME)),
    "act delete": (Verb.DELETE, act(Action.DELETE)),
    "act purge": (Verb.PURGE, act(Action.DELETE, purge=True)),
    "carry_out": (Verb.STOP, lambda w: w.carry_out(VM, Action.STOP, emit=quiet, grace_s=0.0)),
    "apply": (Verb.DELETE, lambda w: applied(w)),
    "consent": (Verb.STOP, lambda w: w.consent(Verb.STOP, [VM])),
    "consent_plan": (Verb.DELETE, lambda w: consented(w)),
    "changing": (Verb.STOP, changed),
    "exec": (Verb.EXEC, lambda w: executed(w)),
    "console": (Verb.CONSOLE, lambda w: attached(w)),
    "wait_ready": (Verb.START, lambda w: w.wait_ready([VM], timeout=5, emit=quiet)),
    "roll_back": (Verb.DELETE, lambda w: rolled(w)),
    "reap": (Verb.HOST, lambda w: w.reap(VM)),
    "answer": (Verb.APPROVE, plain(lambda w: w.answer(1, True))),
    "require": (Verb.CONNECT, plain(lambda w: w.require(Verb.CONNECT, VM))),
}


ANY = ("answer", "changing", "roll_back")  # they take any verb that changes something, or a request


async def applied(workspace: Workspace) -> Any:
    return await workspace.apply(await whole_plan(workspace), emit=quiet)


async def consented(workspace: Workspace) -> Any:
    return await workspace.consent_plan(await whole_plan(workspace))


async def rolled(workspace: Workspace) -> None:
    await workspace.roll_back(await whole_plan(workspace), Outcome(result="converged", changes=1), emit=quiet)


async def executed(workspace: Workspace) -> None:
    session = await workspace.exec(VM, ExecRequest(argv=("true",)))
    await session.aclose()


async def attached(workspace: Workspace) -> None:
    terminal = await workspace.console(VM)
    await terminal.aclose()


# What looks, with what it must say to who may see nothing.
LOOKS: dict[str, tuple[Call, Any]] = {
    "scan": (lambda w: w.scan(), ()),
    "refresh": (lambda w: w.refresh([VM, SECRET]), {}),
    "inspect": (lambda w: w.inspect(VM), NotFound),
    "inspect_or_none": (lambda w: w.inspect_or_none(VM), None),
    "profiles": (plain(lambda w: w.profiles()), ()),
    "profile_paths": (plain(lambda w: w.profile_paths()), {}),
    "everything": (plain(lambda w: w.everything()), {}),
    "applied": (plain(lambda w: w.applied(VM)), None),
    "references": (plain(lambda w: w.references(VM)), ((), ())),
    "resolve": (plain(lambda w: w.resolve("guest", ())), NotFound),
    "plan_down": (lambda w: w.plan_down("dev", purge=True), NotFound),
    "logs": (lambda w: drained(w.logs(VM, tail=5, follow=False)), NotFound),
    "log_source": (lambda w: w.log_source(VM), NotFound),
    "stats": (lambda w: w.stats(VM), NotFound),
    "exits": (lambda w: w.exits(VM), NotFound),
    "events": (plain(lambda w: w.events()), []),
    "may": (plain(lambda w: [verb for verb in Verb if w.may(verb, VM)]), []),
    "approvals": (plain(lambda w: w.approvals()), ()),
}
# Neither about a resource of the workspace, or looked at below.
ELSEWHERE = {
    "plan", "watch", "seen_by", "open", "aclose", "backends", "roles", "counts_exits",
    "probe", "probed", "probe_each", "__aenter__", "__aexit__",
}  # fmt: skip


def test_each_method_is_looked_at_here() -> None:
    public = {name for name, _ in inspect.getmembers(Workspace, inspect.isroutine) if not name.startswith("_")}
    covered = {name.partition(" ")[0] for name in ACTS} | set(LOOKS) | ELSEWHERE
    assert public - covered == set(), "say who may call it"
    assert covered - public - ELSEWHERE == set()


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("who", [NOBODY, STRANGER, BUILTIN["viewer"]], ids=lambda who: who.name)
async def test_who_may_not_changes_nothing(workspace: Workspace, who: Role, name: str) -> None:
    before, events = await picture(workspace), len(workspace.events())
    notes = Notes()
    with suppress(Fault):
        await ACTS[name][1](acting(workspace, who, notes=notes))
        assert (name, who) in (("changing", STRANGER), ("roll_back", STRANGER)), "it was let"
    assert await picture(workspace) == before
    assert len(workspace.events()) == events
    if name not in ANY:
        assert [result for _, _, result, _ in notes.taken] == ["denied"], "it was not noted"


@pytest.mark.parametrize("name", [name for name in ACTS if name not in ANY])
async def test_each_act_takes_its_verb(workspace: Workspace, name: str) -> None:
    """With all verbs but that one it is refused; with all of them it is not."""
    verb, call = ACTS[name]
    if name == "act resume":
        await workspace.act(VM, Action.PAUSE, emit=quiet)
    without = {verb, *(WAITS if name == "wait_ready" else ())}
    lacking = role(Allow(verbs=tuple(other for other in Verb if other not in without)))
    before = await picture(workspace)
    with pytest.raises(Denied, match=r"the role custom may not"):
        await call(acting(workspace, lacking))
    assert await picture(workspace) == before
    try:
        await call(acting(workspace, BUILTIN["admin"]))
    except Denied:
        pytest.fail("an admin was denied")
    except Fault:
        assert name in ("act start", "act delete")  # it runs already; fine


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("who", [NOBODY, STRANGER], ids=lambda who: who.name)
async def test_what_is_hidden_is_not_there(workspace: Workspace, who: Role, name: str) -> None:
    call, expected = LOOKS[name]
    theirs = acting(workspace, who)
    if expected is NotFound:
        with pytest.raises(NotFound) as caught:
            await call(theirs)
        told = f"{caught.value} {caught.value.hint} {caught.value.details}"
        assert not any(word in told for word in ("did you mean", "prod", "web", "secret", "lab"))
        return
    assert await call(theirs) == expected


async def test_what_is_absent_reads_as_what_is_hidden(workspace: Workspace) -> None:
    theirs = acting(workspace, DEV)
    said = []
    for ref in (SECRET, Ref("prod", Kind.CONTAINER, "nothing")):
        for call in (
            lambda ref: theirs.inspect(ref),
            lambda ref: theirs.act(ref, Action.STOP, emit=quiet),
            lambda ref: theirs.stats(ref),
            lambda ref: drained(theirs.logs(ref, tail=1, follow=False)),
            lambda ref: theirs.exec(ref, ExecRequest(argv=("x",))),
        ):
            with pytest.raises(NotFound) as caught:
                await call(ref)
            said.append((type(caught.value), str(caught.value).replace(str(ref), "REF"), caught.value.hint))
    assert said[: len(said) // 2] == said[len(said) // 2 :]


async def test_one_profile_shows_nothing_of_another(workspace: Workspace) -> None:
    theirs = acting(workspace, DEV)
    assert {status.ref.profile for status in await theirs.scan()} == {"dev"}
    assert theirs.profiles() == ("dev",)
    assert {ref.profile for ref in theirs.everything()} == {"dev"}
    assert {entry.ref.partition("/")[0] for entry in theirs.events()} == {"dev"}
    assert len(theirs.events(limit=2)) == 2
    assert await theirs.refresh([VM, SECRET]) == {VM: await theirs.inspect(VM)}
    with pytest.raises(NotFound, match=r"there is no resource 'secret'") as caught:
        theirs.resolve("secret", await workspace.scan())
    assert "prod" not in caught.value.hint
    with pytest.raises(NotFound) as caught:
        await theirs.plan_down("prod", purge=False)
    assert caught.value.hint == "profiles that are: dev"


async def test_events_of_what_is_hidden_do_not_come(workspace: Workspace) -> None:
    theirs = acting(workspace, DEV)
    watched = theirs.watch()
    waiting = asyncio.ensure_future(anext(watched))
    await asyncio.sleep(0.2)
    await workspace.act(SECRET, Action.STOP, emit=quiet, grace_s=0.0)
    await workspace.act(WEB, Action.STOP, emit=quiet, grace_s=0.0)
    assert (await waiting).profile == "dev"
    await watched.aclose()  # type: ignore[attr-defined]


async def test_a_viewer_sees_it_all(workspace: Workspace) -> None:
    theirs = acting(workspace, BUILTIN["viewer"])
    assert await theirs.scan() == await workspace.scan()
    assert theirs.profiles() == ("dev", "prod")
    assert theirs.events() == workspace.events()
    assert await theirs.inspect(VM) == await workspace.inspect(VM)
    assert (await theirs.stats(VM)).at
    assert await drained(theirs.logs(VM, tail=1, follow=False))
    plan = await theirs.plan(profile("dev", MORE))
    assert [change.ref.name for change in plan.changes] == ["new"]
    with pytest.raises(Denied, match="may not create dev/container/new"):
        await theirs.apply(plan, emit=quiet)


async def test_an_operator_runs_it_and_keeps_the_data(workspace: Workspace) -> None:
    theirs = acting(workspace, BUILTIN["operator"], notes=(notes := Notes()))
    await theirs.act(VM, Action.STOP, emit=quiet, grace_s=0.0)
    assert (await theirs.inspect(VM)).phase is Phase.STOPPED
    outcome = await theirs.apply(await theirs.plan(profile("dev", MORE)), emit=quiet)
    assert outcome.result == "converged"
    with pytest.raises(Denied, match="may not purge dev/container/new"):
        await theirs.apply(await theirs.plan_down("dev", purge=True), emit=quiet)
    with pytest.raises(Denied, match="may not purge"):
        await theirs.act(VM, Action.DELETE, emit=quiet, purge=True)
    assert (await theirs.apply(await theirs.plan_down("dev", purge=False), emit=quiet)).result == "converged"
    assert await workspace.inspect(DATA)
    assert ("stop", "done") in notes.results
    assert ("create", "done") in notes.results
    assert ("start", "done") in notes.results
    assert ("delete", "done") in notes.results
    assert ("purge", "denied") in notes.results


async def test_failures_are_noted(workspace: Workspace) -> None:
    theirs = acting(workspace, BUILTIN["operator"], notes=(notes := Notes()))
    with pytest.raises(Fault):
        await theirs.act(VM, Action.START, emit=quiet)
    assert notes.taken == [("start", (VM,), "failed", notes.taken[0][3])]
    assert "running" in notes.taken[0][3]


async def test_the_local_owner_is_not_noted_and_asks_nobody(workspace: Workspace) -> None:
    assert workspace.authority.is_owner
    assert all(workspace.may(verb, SECRET) for verb in Verb)
