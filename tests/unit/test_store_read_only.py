"""Who only looks opens a workspace for reading alone: nothing of it is written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.support.acting import person
from tests.support.fakes import open_fakes, profile
from vmtui.core.errors import OperationFailed
from vmtui.core.policy import BUILTIN
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, Spec
from vmtui.engine.authority import Authority
from vmtui.engine.store import DATABASE, Store, open_context
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths

WEB = Ref("dev", Kind.CONTAINER, "web")
VIEWER = Authority(person("anna"), BUILTIN["viewer"])


def files(root: Path) -> dict[str, tuple[bytes, int]]:
    """All but the memory that SQLite shares among its readers."""
    found = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


async def test_a_viewer_writes_nothing(paths: Paths) -> None:
    owner = open_fakes(paths)
    specs: dict[str, Spec] = {"container/web": ContainerSpec(backend="fake", image="x")}
    await owner.apply(await owner.plan(profile("dev", specs)), emit=lambda _: None)
    before = files(paths.state.parent)
    viewer = await Workspace.open(paths, by="anna", authority=VIEWER)
    assert viewer.store.read_only
    assert viewer.profiles() == ("dev",)
    assert viewer.applied(WEB) == owner.applied(WEB)
    assert viewer.events() == owner.events()
    assert viewer.approvals() == ()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        viewer.store.record(WEB, "stop", "done")
    assert files(paths.state.parent) == before
    owner.store.record(WEB, "stop", "done")
    assert viewer.events()[-1].verb == "stop"
    await viewer.aclose()
    await owner.aclose()


async def test_nothing_is_made_for_a_viewer(paths: Paths) -> None:
    with pytest.raises(OperationFailed, match="cannot use the state directory"):
        await Workspace.open(paths, authority=VIEWER)
    open_context(paths)
    before = files(paths.state.parent)
    with pytest.raises(OperationFailed, match="cannot be used"):
        await Workspace.open(paths, authority=VIEWER)
    assert files(paths.state.parent) == before


def test_a_path_of_any_name_is_opened(tmp_path: Path) -> None:
    for name in ("a b", "100%", "x?mode=memory", "#1", "é"):
        (tmp_path / name).mkdir()
        store = Store(tmp_path / name / DATABASE)
        store.put_profile("dev", "/x")
        Store(tmp_path / name / DATABASE, read_only=True).close()
        store.close()
        assert (tmp_path / name / DATABASE).exists()


async def test_who_changes_something_opens_it_for_writing(paths: Paths) -> None:
    for role in ("operator", "admin"):
        opened = await Workspace.open(paths, authority=Authority(person("anna"), BUILTIN[role]))
        assert not opened.store.read_only
        await opened.aclose()
