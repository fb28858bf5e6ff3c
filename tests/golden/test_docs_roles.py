"""docs/roles.md names every verb and every built-in role, and its example is a file that the server takes."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from tests.support.golden import ROOT
from vmtui.core.policy import APPROVABLE, BUILTIN, Verb
from vmtui.profile import roles

TEXT = (ROOT / "docs/roles.md").read_text()


def test_every_verb_and_role_is_in_its_table() -> None:
    cells = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    named = {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    assert named == {*map(str, Verb), *BUILTIN, "*"}


def test_what_can_wait_is_listed() -> None:
    listed = TEXT[: TEXT.index(" can wait so")].splitlines()[-1]
    assert set(re.findall(r"`(\w+)`", listed)) == {str(verb) for verb in APPROVABLE}


def test_the_example_can_be_used(tmp_path: Path) -> None:
    start = TEXT.index("    [role.")
    lines = []
    for line in TEXT[start:].splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line)
    path = tmp_path / "serve.toml"
    path.write_text(textwrap.dedent("\n".join(lines)))
    role = roles.load(path)["web-team"]
    assert len(role.allow) == 3
    assert role.approval == (Verb.DELETE, Verb.PURGE)
