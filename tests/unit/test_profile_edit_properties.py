"""Whatever is written is read as it was, and an edit changes what it should and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.specs import FOLDER, Resources, options, resources, specs
from vmtui.core.resource import Kind
from vmtui.engine.registry import option_types
from vmtui.profile import edit, toml_text
from vmtui.profile.load import loads

PATH = FOLDER / "some.toml"
example = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def read(text: str) -> Resources:
    found = loads(text, PATH, option_types).resources
    return {(item.ref.kind, item.ref.name): (item.spec, tuple(sorted(item.options))) for item in found}


def in_order(written: Resources) -> Resources:
    return {key: (spec, tuple(sorted(chosen))) for key, (spec, chosen) in written.items()}


def write(written: Resources, text: str = "") -> str:
    for (kind, name), (spec, chosen) in written.items():
        text = edit.add_resource(text, kind, name, spec, chosen, FOLDER)
    return text


def commented(text: str) -> str:
    """With a comment above each table, one set apart from it, and one behind each header."""
    number = iter(range(10_000))
    headers = re.compile(r"^\[[a-z.\"0-9-]+\]$", re.MULTILINE)

    def above(header: re.Match[str]) -> str:
        return f"# apart {next(number)}\n\n# above {next(number)}\n{header[0]}  # behind {next(number)}"

    return headers.sub(above, text) + f"# end {next(number)}\n"


def comments(text: str) -> set[str]:
    return set(re.findall(r"# (?:apart|above|behind|end) \d+", text))


def chunks(text: str) -> list[str]:
    return re.split(r"(?=# apart)", text)


@example
@given(resources())
def test_what_is_written_is_read(written: Resources) -> None:
    assert read(write(written)) == in_order(written)


@st.composite
def edits(draw: Callable[..., Any]) -> tuple[Resources, tuple[Kind, str], Any]:
    """A profile, one of its resources, and what that becomes."""
    written = draw(resources().filter(bool))
    kind, name = draw(st.sampled_from(sorted(written)))
    disks = list(getattr(written[kind, name][0], "disks", ()))
    networks = [other for of, other in written if of is Kind.NETWORK]
    number = list(written).index((kind, name))
    return written, (kind, name), (draw(specs(kind, networks, disks, 8000 + number)), draw(options(kind)))


@example
@given(edits(), st.booleans())
def test_an_edit_changes_one_resource_and_no_comment(case: tuple[Resources, tuple[Kind, str], Any], dos: bool) -> None:
    written, (kind, name), (spec, chosen) = case
    text = commented(write(written))
    text = text.replace("\n", "\r\n") if dos else text
    before = read(text)
    was, had = before[kind, name]
    values = edit.changes(was, spec, had, chosen, FOLDER)
    after = edit.set_fields(text, kind, name, values)
    assert read(after) == {**before, (kind, name): (spec, tuple(sorted(chosen)))}
    gone = {toml_text.key(kind, name, *path) for path, value in values.items() if value is None}
    with_them = [chunk for chunk in chunks(text) if any(f"\n[{key}]" in chunk or f"\n[{key}." in chunk for key in gone)]
    assert comments(text) - comments(after) <= set().union(*map(comments, with_them))
    assert values or after == text
    back = edit.changes(spec, was, tuple(sorted(chosen)), had, FOLDER)
    assert read(edit.set_fields(after, kind, name, back)) == before


@example
@given(resources().filter(bool), st.data())
def test_a_resource_goes_and_the_others_stay(written: Resources, data: st.DataObject) -> None:
    kind, name = data.draw(st.sampled_from(sorted(written)))
    text = commented(write(written))
    if kind in (Kind.NETWORK, Kind.DISK):  # what refers to it goes first
        for other_kind, other in [key for key in written if key[0] in (Kind.VM, Kind.CONTAINER)]:
            text = edit.remove_resource(text, other_kind, other)
    before = read(text)
    after = edit.remove_resource(text, kind, name)
    assert read(after) == {key: value for key, value in before.items() if key != (kind, name)}
    own = [chunk for chunk in chunks(text) if re.search(rf"^\[{kind}\.{name}[.\]]", chunk, re.MULTILINE)]
    with_it = set().union(*map(comments, own)) - {own[0].splitlines()[0]} - {text.splitlines()[-1]}
    assert comments(text) - comments(after) == with_it
