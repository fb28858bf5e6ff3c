"""Forms: what is offered for a type, what is typed for a value, and what a filled-in form makes of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

from tests.support.specs import FOLDER, Resources, resources
from vmtui.core.resource import Kind, Ref
from vmtui.core.units import Duration, Size
from vmtui.engine.registry import option_types
from vmtui.profile import edit, load
from vmtui.tui.forms import values
from vmtui.tui.forms.draft import GENERAL, Draft, offers, table_in
from vmtui.tui.forms.fields import Field, Section, Shape, fields_of, struct_fields
from vmtui.tui.forms.values import read, shown, wrong

FILE = FOLDER / "dev.toml"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(msgspec.Struct, frozen=True):
    depth: int = 3


class Foreign(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """How the other one makes it.

    More of it.
    """

    must_have: str
    on: bool = True
    level: Annotated[int, Meta(ge=0, le=9)] = 1
    ratio: float | None = None
    colour: Colour = Colour.RED
    mode: Literal["a", "b"] = "a"
    size: Size | None = None
    either: int | str = 0
    numbers: tuple[int, ...] = ()
    texts: list[str] = []
    colours: tuple[Colour, ...] = ()
    table: dict[str, str] = {}
    other: dict[str, int] = {}
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()


def test_a_third_party_backend_has_its_form_for_free() -> None:
    def with_foreign(kind: Kind) -> Mapping[str, type[msgspec.Struct] | None]:
        return {"other": Foreign, "none": None}

    found = {".".join(field.path): field for field in fields_of(Kind.VM, with_foreign) if field.section == "other"}
    assert {name: field.shape for name, field in found.items()} == {
        "other.must-have": Shape.TEXT,
        "other.on": Shape.CHOICE,
        "other.level": Shape.NUMBER,
        "other.ratio": Shape.NUMBER,
        "other.colour": Shape.CHOICE,
        "other.mode": Shape.CHOICE,
        "other.size": Shape.QUANTITY,
        "other.either": Shape.QUANTITY,
        "other.numbers": Shape.WORDS,
        "other.texts": Shape.LINES,
        "other.colours": Shape.WORDS,
        "other.table": Shape.PAIRS,
        "other.other": Shape.TOML,
        "other.inner.depth": Shape.NUMBER,
        "other.several": Shape.TOML,
    }
    assert found["other.must-have"].required
    assert found["other.level"].says == "a whole number from 0 to 9"
    assert found["other.colour"].choices == ("red", "blue")
    assert found["other.inner.depth"].label == "inner.depth"
    assert found["other.on"].about == "How the other one makes it."
    backend = next(field for field in fields_of(Kind.VM, with_foreign) if field.path == ("backend",))
    assert backend.choices == ("auto", "none", "other")


def test_a_backend_that_cannot_be_loaded_has_no_fields() -> None:
    class Broken(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise ImportError(name)

    assert {field.section for field in fields_of(Kind.DISK, lambda kind: Broken(gone=None))} == {
        Section.OWN,
        Section.ALL,
    }


def test_only_workloads_can_be_asked_whether_they_are_ready() -> None:
    def conditions(kind: Kind) -> list[str]:
        return [field.path[1] for field in fields_of(kind, option_types) if field.section == Section.READY]

    assert conditions(Kind.DISK) == []
    assert conditions(Kind.SANDBOX) == ["log", "exit_code", "timeout", "interval"]
    assert "http" in conditions(Kind.VM)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_field_of_a_spec_has_help(kind: Kind) -> None:
    assert all(field.about for field in fields_of(kind, option_types) if field.section in list(Section))
    assert all(field.says for field in fields_of(kind, option_types))


def field(shape: Shape, kind: Any = str, **more: Any) -> Field:
    return Field(path=("x",), shape=shape, type=kind, says="", **more)


@pytest.mark.parametrize(
    ("shape", "typed", "plain"),
    [
        (Shape.TEXT, "a b", "a b"),
        (Shape.TEXT, ' "a\\n\\u202e" ', "a\n\u202e"),
        (Shape.TEXT, '""', ""),
        (Shape.NUMBER, "1_000", 1000),
        (Shape.NUMBER, "0.5", 0.5),
        (Shape.QUANTITY, "512MiB", "512MiB"),
        (Shape.QUANTITY, "30", 30),
        (Shape.WORDS, 'a, b ,, "c, d"', ["a", "b", "c, d"]),
        (Shape.WORDS, "[]", []),
        (Shape.LINES, 'sh\n-c\n"a\\nb"\n\n', ["sh", "-c", "a\nb"]),
        (Shape.PAIRS, 'A=1\n B = x=y \n"k=1"="v "\nE=', {"A": "1", "B": "x=y", "k=1": "v ", "E": ""}),
        (Shape.TOML, "[{ a = 1 }]", [{"a": 1}]),
    ],
)
def test_what_is_typed(shape: Shape, typed: str, plain: Any) -> None:
    assert read(field(shape), typed) == plain


@pytest.mark.parametrize(
    ("shape", "kind", "typed", "message"),
    [
        (Shape.TEXT, str, '"open', 'not a text in quotes; write \\" for a quote in it'),
        (Shape.NUMBER, int, "many", "'many' is not a number"),
        (Shape.NUMBER, Annotated[int, Meta(ge=1)], "0", "expected `int` >= 1"),
        (Shape.NUMBER, int, "1.5", "expected a whole number, not a number"),
        (Shape.QUANTITY, Size, "1XB", '\'1XB\' is not a size; write "512MiB" or "10GiB"'),
        (Shape.QUANTITY, Duration, "soon", '\'soon\' is not a duration; write "30s" or "1m30s"'),
        (Shape.PAIRS, dict[str, str], "A", "'A' is not KEY=VALUE"),
        (Shape.PAIRS, dict[str, str], "A=1\nA=2", "'A' is there twice"),
        (Shape.TOML, Any, "1\nx.y = 2", "not a TOML value"),
        (Shape.TOML, Any, "[", "not a TOML value"),
    ],
)
def test_what_is_wrong_with_what_is_typed(shape: Shape, kind: Any, typed: str, message: str) -> None:
    assert wrong(field(shape, kind), typed) == message


@pytest.mark.parametrize("typed", ["6", "64", "64M", "64Mi", "64MiB", "64mib", "64MB", "64B"])
def test_a_size_is_a_size_at_every_key(typed: str) -> None:
    assert wrong(field(Shape.QUANTITY, Size), typed) == ""


def test_nothing_typed() -> None:
    assert read(field(Shape.LINES), " \n ") is values.UNSET
    assert wrong(field(Shape.TEXT), "") == ""
    assert wrong(field(Shape.TEXT, required=True), "") == "this is needed"
    assert wrong(field(Shape.CHOICE, choices=("a", "b")), "c") == "use one of: a, b"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
plain_values = {
    Shape.TEXT: texts,
    Shape.NUMBER: st.one_of(st.integers(-(1 << 60), 1 << 60), st.floats(allow_nan=False, allow_infinity=False)),
    Shape.WORDS: st.lists(texts, max_size=4),
    Shape.LINES: st.lists(texts, max_size=4),
    Shape.PAIRS: st.dictionaries(texts, texts, max_size=4),
    Shape.TOML: st.one_of(st.booleans(), st.lists(st.dictionaries(texts, st.integers(0, 9), max_size=2))),
}


@given(st.data(), st.sampled_from(list(plain_values)))
def test_what_is_shown_is_read_again(data: st.DataObject, shape: Shape) -> None:
    plain = data.draw(plain_values[shape])
    typed = shown(field(shape), plain)
    assert read(field(shape), typed) == plain
    assert all(line.isprintable() for line in typed.split("\n"))


# Drafts

TEXT = """
[network.lab]

# ours
[vm.guest]
memory = "1G" # not GiB
kernel = "k"
networks = ["lab"]
ready = { tcp = 22, timeout = "2m" }

[vm.guest.environment]
A = "1" # one
B = "2"

[vm.other]
kernel = "k"
"""
GUEST = Ref("dev", Kind.VM, "guest")


def draft(ref: Ref = GUEST, text: str = TEXT) -> Draft:
    return Draft(ref, table_in(text, ref.kind, ref.name), option_types)


def test_an_edit_sets_what_was_typed_anew_and_nothing_else() -> None:
    made = draft()
    assert made.text(("memory",)) == "1G"
    assert made.written(TEXT) == TEXT
    untouched = made.unsaved
    assert made.type(("cpus",), "two") == "'two' is not a number"
    assert made.type(("cpus",), "2") == ""
    assert made.type(("environment",), "A=1\nC=3") == ""
    assert made.type(("networks",), "") == ""
    assert (untouched, made.unsaved) == (False, True)
    assert made.changes() == {
        ("cpus",): 2, ("networks",): None, ("environment", "B"): None, ("environment", "C"): "3"
    }  # fmt: skip
    made.type(("environment",), "A=1\nB=2")
    made.type(("ready", "tcp"), "")
    made.type(("ready", "timeout"), "")
    assert made.changes() == {("cpus",): 2, ("networks",): None, ("ready",): None}
    assert '# not GiB\nkernel = "k"\ncpus = 2\n' in made.written(TEXT)
    assert made.excerpt(made.written(TEXT)).startswith("# ours\n[vm.guest]\n")


def test_what_is_wrong_is_said_where_it_was_typed() -> None:
    made = draft()
    assert made.checked(TEXT, FILE, option_types)[1] == {
        ("environment",): "environment needs rootfs: only then vmtui's own init runs"
    }
    made.type(("environment",), "")
    profile, found = made.checked(TEXT, FILE, option_types)
    assert profile is not None
    assert found == {}
    made.type(("networks",), "lab, lob")
    assert made.checked(TEXT, FILE, option_types)[1] == {
        ("networks",): "there is no network 'lob' in this profile: did you mean 'lab'?"
    }
    made.type(("ready", "http"), "/")
    assert made.checked(TEXT, FILE, option_types)[1] == {
        (
            "ready",
            "log",
        ): "exactly one condition is needed, tcp and http are given: use one of: log, tcp, http, exec, exit_code"
    }


def test_what_is_wrong_elsewhere_is_said_of_the_whole() -> None:
    text = TEXT.replace("[vm.other]", '[vm.other]\nports = ["80:80"]').replace(
        '[vm.guest.environment]\nA = "1" # one\nB = "2"\n', ""
    )
    made = draft(text=text)
    made.type(("ports",), "80:81")
    _, found = made.checked(text, FILE, option_types)
    assert list(found) == [GENERAL]
    assert "vm/guest publishes host port 80/tcp already" in found[GENERAL]


def test_a_new_resource() -> None:
    made = draft(Ref("dev", Kind.CONTAINER, "web"))
    assert made.is_new
    assert made.wrong() == {("image",): "this is needed"}
    made.type(("image",), "deb:x")
    made.type(("command",), 'sh\n-c\n"a\\nb"')
    made.type(("oci", "runtime"), "crun")
    assert (
        made.written("")
        == '[container.web]\nimage = "deb:x"\ncommand = ["sh", "-c", """\na\nb"""]\noci = { runtime = "crun" }\n'
    )


def test_what_can_be_referred_to_is_offered() -> None:
    refs = [item.ref for item in load.loads(TEXT.replace("environment", "labels"), FILE, option_types).resources]
    found = {each.path: offers(each, GUEST, refs) for each in draft().fields}
    assert found["networks",] == ("lab",)
    assert found["disks",] == ()
    assert found["depends_on",] == ("vm/other",)
    assert "fake" in found["backend",]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(resources().filter(bool), st.data())
def test_a_form_says_what_the_file_says(written: Resources, data: st.DataObject) -> None:
    text = ""
    for (kind, name), (spec, chosen) in written.items():
        text = edit.add_resource(text, kind, name, spec, chosen, FOLDER)
    kind, name = data.draw(st.sampled_from(sorted(written)))
    made = Draft(Ref("dev", kind, name), table_in(text, kind, name), option_types)
    assert made.wrong() == {}
    assert made.table() == {name: item for name, item in (table_in(text, kind, name) or {}).items() if item != {}}
    for each in made.fields:
        made.type(each.path, made.text(each.path))
    assert made.written(text) == text


def test_struct_fields_of_one_that_is_nested_and_optional() -> None:
    class Outer(msgspec.Struct, frozen=True):
        inner: Inner | None = None
        any_of: Inner | str = ""

    assert [(each.path, each.shape) for each in struct_fields(Outer)] == [
        (("inner", "depth"), Shape.NUMBER),
        (("any_of",), Shape.TOML),
    ]


def test_files_are_beside_the_profile(tmp_path: Path) -> None:
    made = draft(Ref("dev", Kind.SANDBOX, "s"))
    made.type(("module",), "a.wat")
    profile, _ = made.checked("", tmp_path / "dev.toml", option_types)
    assert profile is not None
    assert profile.resources[0].spec.module == str(tmp_path / "a.wat")  # type: ignore[attr-defined]
