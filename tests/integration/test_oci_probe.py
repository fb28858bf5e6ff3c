"""The probe of containers: it runs one, and says what is missing where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hostview import HostView
from vmtui.backends.oci import probe as probing
from vmtui.core.backend import Context
from vmtui.runtime import seccomp

pytestmark = pytest.mark.real


async def test_a_container_is_run_and_nothing_of_it_is_left(context: Context) -> None:
    probe = await probing.probe(context)
    assert probe.usable, probe.problems
    facts = dict(probe.facts)
    assert facts["user namespace"].startswith("yes")
    assert facts["capabilities"] == "00000000800405fb"
    assert {problem.code for problem in probe.problems} <= {"runc-old"}
    left = HostView.of(context, ())
    assert {name: lines for name, lines in left.sections.items() if lines} == {}
    assert sorted(path.name for path in context.paths.cache.rglob("*")) == ["oci", "probe.json"]


async def test_what_worked_is_remembered(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await probing.probe(context)

    async def again(*_: object) -> None:
        raise AssertionError("it was tried again")

    monkeypatch.setattr(probing, "_try", again)
    assert await probing.probe(context) == first


async def test_a_missing_profile_is_named(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp.resolve, "__kwdefaults__", {"machine": None, "profile": Path("/none/seccomp.json")})
    probe = await probing.probe(context)
    assert not probe.usable
    (problem,) = probe.problems
    assert "/none/seccomp.json" in problem.message
    assert problem.hint == f"apt-get install {seccomp.PACKAGE}"


async def test_a_missing_program_is_named(context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    probe = await probing.probe(context)
    assert not probe.usable
    assert probe.problems[0].hint.startswith("apt-get install ")
