"""docs/roles.md names every verb and every built-in role, and its example is a file that the server takes."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from pathlib import Path

from jsonschema import Draft202012Validator

from tests.support.golden import ROOT
from vmtui.core.policy import APPROVABLE, BUILTIN, Allow, Role, Verb
from vmtui.profile import descriptions, jsonschema, roles
from vmtui.profile.serving import Serve, WebSettings

TEXT = (ROOT / "docs/roles.md").read_text()


def test_every_verb_and_role_is_in_its_table() -> None:
    cells = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    named = {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    assert named == {*map(str, Verb), *BUILTIN, "*"}


def test_what_can_wait_is_listed() -> None:
    listed = TEXT[: TEXT.index(" can wait so")].splitlines()[-1]
    assert set(re.findall(r"`(\w+)`", listed)) == {str(verb) for verb in APPROVABLE}


def example() -> str:
    start = TEXT.index("    [role.")
    lines = []
    for line in TEXT[start:].splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line)
    return textwrap.dedent("\n".join(lines))


def test_the_example_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(example())
    role = roles.load(path)["web-team"]
    assert len(role.allow) == 3
    assert role.approval == (Verb.DELETE, Verb.PURGE)


def test_the_schema_says_the_same() -> None:
    schema = jsonschema.serve()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(tomllib.loads(example()))
    validator.validate({"serve": {"listen": ["[::1]:22"], "keepalive": "1m", "web": {"tls": True}}, "role": {"x": {}}})
    wrongs: list[dict[str, object]] = [
        {"frob": 1},
        {"serve": {"frob": 1}},
        {"serve": {"sessions": 0}},
        {"serve": {"web": {"tls": None}}},
        {"role": {"A B": {}}},
        {"role": {"x": {"name": "y"}}},
        {"role": {"x": {"allow": [{"verbs": ["fly"]}]}}},
        {"role": {"x": {"approval": ["view"]}}},
    ]
    for wrong in wrongs:
        assert list(validator.iter_errors(wrong)), json.dumps(wrong)


def test_every_key_is_described() -> None:
    for table in (Serve, WebSettings, Role, Allow):
        missing = [name for name in table.__struct_fields__ if not descriptions.of(table, name)]
        assert missing == (["name"] if table is Role else [])
