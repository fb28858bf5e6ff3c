"""The documents say what the code does: their tables are made from it, and no verb, code or record is missing."""

from __future__ import annotations

import json
import os
import re
import tomllib
import types
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import pytest
from jsonschema import Draft202012Validator

from tests.support.golden import REGENERATE, ROOT
from vmtui.core.events import AnyEvent
from vmtui.core.resource import Kind
from vmtui.core.specs import SPECS, Ready, Spec, Workload, encode
from vmtui.core.units import Duration, Mount, Publish, ReadOnlyMount, Size
from vmtui.engine.registry import option_types
from vmtui.headless.commands import HIDDEN, VERBS
from vmtui.headless.exit_codes import MEANINGS
from vmtui.profile import descriptions, graph
from vmtui.profile.load import load

PROFILE = ROOT / "docs/profile.md"
HEADLESS = ROOT / "docs/headless.md"
WORDS: dict[Any, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true, false",
    Size: "size",
    Duration: "time",
    Publish: "port",
    Mount: "mount",
    ReadOnlyMount: "mount",
    Ready: "table",
}


def shown_type(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return shown_type(get_args(kind)[0])
    if get_origin(kind) in (types.UnionType, Union):
        return shown_type(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return f"list of {shown_type(get_args(kind)[0])}s"
    if get_origin(kind) is dict:
        return "table of texts"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{member}`" for member in kind)
    return WORDS[kind]


def shown_default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    plain = encode(default)
    return (
        ""
        if plain in (None, "", {}, []) or plain == ()
        else f"`{str(plain).lower() if plain in (True, False) else plain}`"
    )


def rows(spec_type: type, names: list[str]) -> Iterator[str]:
    fields = {field.name: field for field in msgspec.structs.fields(spec_type)}
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name in names:
        meaning = descriptions.of(spec_type, name).replace("|", "\\|")
        yield f"| `{name}` | {shown_type(fields[name].type)} | {shown_default(fields[name])} | {meaning} |"


def tables() -> dict[str, str]:
    shared = set(Workload.__struct_fields__)
    found = {
        "ready": (Ready, list(Ready.__struct_fields__)),
        "all": (Spec, list(Spec.__struct_fields__)),
        "workload": (Workload, [name for name in Workload.__struct_fields__ if name not in Spec.__struct_fields__]),
    }
    for kind in Kind:
        names = [name for name in SPECS[kind].__struct_fields__ if name not in shared]
        found[kind] = (SPECS[kind], names)
    return {name: "\n".join(rows(*table)) for name, table in found.items()}


def with_tables(text: str) -> str:
    for name, table in tables().items():
        block = re.search(rf"(?<=<!-- table: {name} -->\n).*?(?=<!-- end -->)", text, re.DOTALL)
        assert block is not None, f"no place for table {name}"
        text = f"{text[: block.start()]}{table}\n{text[block.end() :]}"
    return text


def test_the_tables_of_the_profile_are_current() -> None:
    text = PROFILE.read_text()
    if os.environ.get(REGENERATE):
        PROFILE.write_text(with_tables(text))
        return
    assert with_tables(text) == text, f"{REGENERATE}=1 pytest writes them anew"


@pytest.mark.parametrize("kind", list(Kind))
def test_every_field_is_described(kind: Kind) -> None:
    assert not [name for name, line in descriptions.fields(kind).items() if not line]


def test_nothing_is_described_that_is_not_there() -> None:
    for spec_type, lines in descriptions.FIELDS.items():
        assert set(lines) <= {field.name for field in msgspec.structs.fields(spec_type)}
    assert set(graph.REFERENCES) <= {name for spec in SPECS.values() for name in spec.__struct_fields__}


def test_every_verb_and_exit_code_is_documented() -> None:
    text = HEADLESS.read_text()
    assert not [name for name in VERBS if name not in HIDDEN and f"`{name}" not in text]
    assert not [code for code in MEANINGS if f"| {int(code)} |" not in text]


def test_every_record_is_documented() -> None:
    text = HEADLESS.read_text()
    tags = [msgspec.inspect.type_info(kind).tag for kind in get_args(AnyEvent)]  # type: ignore[attr-defined]
    assert len(tags) == 9
    assert not [tag for tag in tags if f"`{tag}`" not in text]


def profiles() -> dict[str, str]:
    """The example of the document, and the profiles that ship."""
    example = re.search(r"```toml\n(.*?)```", PROFILE.read_text(), re.DOTALL)
    assert example is not None
    shipped = {path.name: path.read_text() for path in sorted((ROOT / "profiles").glob("*.toml"))}
    return {"docs.toml": example[1], **shipped}


@pytest.mark.parametrize("name", list(profiles()))
def test_profiles_load_and_fit_the_schema(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(profiles()[name])
    assert load(path, option_types).resources
    schema = json.loads((ROOT / "docs/schema/profile.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(tomllib.loads(profiles()[name]))
