"""`--trace` on commands that are really run."""

from __future__ import annotations

import pytest

from vmtui.engine.workspace import Workspace
from vmtui.headless import session
from vmtui.headless.session import Session
from vmtui.headless.tracing import traced
from vmtui.host import trace
from vmtui.host.paths import Paths
from vmtui.host.process import run


def test_what_is_done_is_told_as_it_is_done_and_what_only_looks_is_not(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in paths.environment().items():
        monkeypatch.setenv(name, value)

    async def command(here: Session, workspace: Workspace) -> int:
        await run(["true", "two words", "--password", "hunter2"])
        await run(["true", "a-look"], reads=True)
        await run(["sh", "-c", "printf '\\033[2J'", "\x1b[2J\u202e"])
        here.screen.say("between")
        await run(["true", "last"])
        return 0

    listeners = len(trace._listeners)
    assert session.run(traced(command), json=True) == 0
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == "+ true 'two words' --password '***'"
    assert "a-look" not in said.err
    assert "\x1b" not in said.err
    assert "\u202e" not in said.err
    assert "+ true last" in lines
    assert len(trace._listeners) == listeners
