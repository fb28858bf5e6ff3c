"""The decision over roles: deny by default, and a permission fewer never allows more."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.core import policy
from vmtui.core.lifecycle import Action
from vmtui.core.policy import BUILTIN, WHOLE, Allow, Person, Role, Target, Verb, anywhere, changes_nothing, permits
from vmtui.core.resource import Kind, Ref

ANNA = Person(name="anna", key="SHA256:a")
WEB = Target(Ref("dev", Kind.VM, "web"), {"tier": "front"}, "anna")
DB = Target(Ref("prod", Kind.CONTAINER, "db"))

names = st.sampled_from(["a", "b", "dev", "web", "a-b", "0"])
labels = st.dictionaries(st.sampled_from(["tier", "team"]), st.sampled_from(["", "x", "y"]), max_size=2)
targets = st.builds(
    Target,
    st.builds(Ref, names, st.sampled_from(Kind), names),
    labels,
    st.sampled_from(["", "anna", "bert"]),
)
patterns = st.sampled_from(["*", "dev/*", "*/vm/*", "*/web", "a/vm/b", "[ab]/*", "?/*/*", ""])
allows = st.builds(
    Allow,
    verbs=st.lists(st.sampled_from(["*", *Verb]), max_size=4).map(tuple),
    kinds=st.lists(st.sampled_from(Kind), max_size=2).map(tuple),
    names=st.lists(patterns, max_size=2).map(tuple),
    labels=labels,
    own=st.booleans(),
)
roles = st.builds(Role, name=st.just("r"), allow=st.lists(allows, max_size=4).map(tuple))
people = st.builds(Person, name=st.sampled_from(["", "anna", "bert"]))
verbs = st.sampled_from(Verb)


def role(*allow: Allow) -> Role:
    return Role(name="r", allow=allow)


def test_a_verb_that_is_an_action_has_its_name() -> None:
    for action in Action:
        assert Verb(action.value).name == action.name


@given(verbs, targets | st.none(), people)
def test_what_nobody_allowed_is_denied(verb: Verb, target: Target | None, person: Person) -> None:
    assert not permits(role(), verb, target, person)
    assert not anywhere(role(), verb)


@given(roles, verbs, targets | st.none(), people, st.data())
def test_a_permission_fewer_never_allows_more(
    given_: Role, verb: Verb, target: Target | None, person: Person, data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(given_.allow), unique_by=id)) if given_.allow else []
    if permits(role(*kept), verb, target, person):
        assert permits(given_, verb, target, person)
    if changes_nothing(given_):
        assert changes_nothing(role(*kept))


@given(allows, verbs, targets, people, st.data())
def test_a_restriction_more_never_allows_more(
    allow: Allow, verb: Verb, target: Target, person: Person, data: st.DataObject
) -> None:
    own = msgspec.structs.replace(allow, own=True)
    labelled = msgspec.structs.replace(allow, labels={**allow.labels, "team": "x"})
    before, after = role(allow), role(data.draw(st.sampled_from([own, labelled])))
    for seen in (target, None):
        if permits(after, verb, seen, person) and allow.labels.get("team", "x") == "x":
            assert permits(before, verb, seen, person)


@given(roles, verbs, targets | st.none(), people)
def test_what_is_permitted_is_permitted_somewhere(
    given_: Role, verb: Verb, target: Target | None, person: Person
) -> None:
    if permits(given_, verb, target, person):
        assert anywhere(given_, verb)
    if target is not None and permits(given_, verb, None, person):
        assert permits(given_, verb, target, person)


@given(roles, verbs, targets, people)
def test_labels_and_owner_decide_only_where_a_role_asks_for_them(
    given_: Role, verb: Verb, target: Target, person: Person
) -> None:
    if policy.by_name_alone(given_):
        assert permits(given_, verb, target, person) == permits(given_, verb, Target(target.ref), person)


@given(allows, st.sampled_from(sorted(WHOLE)), targets | st.none(), people)
def test_the_host_is_not_a_part_of_one_profile(allow: Allow, verb: Verb, target: Target | None, person: Person) -> None:
    if permits(role(allow), verb, target, person):
        assert allow.whole


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [("*", True), ("dev/*", True), ("*/vm/*", True), ("dev/vm/web", True), ("*/web", True), ("dev/vm/we?", True),
     ("prod/*", False), ("web", False), ("dev", False), ("DEV/*", False), ("", False), ("dev/vm/we", False)],
)  # fmt: skip
def test_globs(pattern: str, fits: bool) -> None:
    assert permits(role(Allow(verbs=("view",), names=(pattern,))), Verb.VIEW, WEB, ANNA) is fits


def test_all_that_is_given_must_fit() -> None:
    allow = Allow(verbs=("view",), kinds=(Kind.VM,), names=("dev/*",), labels={"tier": "front"}, own=True)
    assert permits(role(allow), Verb.VIEW, WEB, ANNA)
    assert not permits(role(allow), Verb.VIEW, WEB, Person(name="bert"))
    assert not permits(role(allow), Verb.VIEW, Target(WEB.ref, {"tier": "back"}, "anna"), ANNA)
    assert not permits(role(allow), Verb.VIEW, Target(WEB.ref, {}, "anna"), ANNA)
    assert not permits(role(allow), Verb.STOP, WEB, ANNA)
    assert not permits(role(allow), Verb.VIEW, None, ANNA)


def test_nobody_owns_what_has_no_owner() -> None:
    assert not permits(role(Allow(verbs=("*",), own=True)), Verb.VIEW, DB, Person(name=""))


def test_who_may_do_everything_in_a_profile_may_not_touch_the_host() -> None:
    all_of_dev = role(Allow(verbs=("*",), names=("dev/*",)))
    assert permits(all_of_dev, Verb.PURGE, WEB, ANNA)
    for verb in WHOLE:
        assert not permits(all_of_dev, verb, WEB, ANNA)
        assert not anywhere(all_of_dev, verb)


def test_the_built_in_roles() -> None:
    looks = {Verb.VIEW, Verb.LOGS, Verb.STATS}
    for verb in Verb:
        assert permits(BUILTIN["viewer"], verb, DB, ANNA) is (verb in looks)
        assert permits(BUILTIN["admin"], verb, DB, ANNA)
        assert permits(BUILTIN["admin"], verb, None, ANNA)
        lacks = {Verb.PURGE, Verb.FILES, Verb.EXPORT, Verb.IMPORT, Verb.APPROVE} | WHOLE
        assert permits(BUILTIN["operator"], verb, DB, ANNA) is (verb not in lacks)
    assert changes_nothing(BUILTIN["viewer"])
    assert not changes_nothing(BUILTIN["operator"])
    assert not changes_nothing(BUILTIN["admin"])
    assert not changes_nothing(role(Allow(verbs=("drive",))))
    assert changes_nothing(role(Allow(verbs=("observe", "audit"))))
