"""The history: by whom, and databases of the version before."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from vmtui.core.errors import OperationFailed
from vmtui.core.resource import Kind, Ref
from vmtui.engine.store import SCHEMA_VERSION, Store
from vmtui.host import person
from vmtui.host.paths import Paths

WEB = Ref("t", Kind.CONTAINER, "web")
# As version 1 made it.
OLD = """
create table resource (
    profile text not null, kind text not null, name text not null,
    backend text not null, desired blob not null, intent text not null,
    restarts integer not null default 0, ready text not null default '', applied_at real not null,
    primary key (profile, kind, name)
) without rowid;
create table profile (name text primary key, path text not null, applied_at real not null);
create table journal (
    id integer primary key, run text not null, ref text not null, verb text not null, at real not null
);
create table event (
    id integer primary key, at real not null,
    ref text not null, verb text not null, result text not null, message text not null
);
insert into profile values ('t', '/t.toml', 1.0);
insert into journal (run, ref, verb, at) values ('r', 't/container/web', 'create', 1.0);
insert into event (at, ref, verb, result, message) values (1.0, 't/container/web', 'create', 'done', 'old');
pragma user_version = 1;
"""


@pytest.fixture
def old(paths: Paths) -> Path:
    path = paths.state / "state.db"
    db = sqlite3.connect(path)
    db.executescript(OLD)
    db.close()
    return path


def test_an_old_database_is_upgraded_without_loss(old: Path) -> None:
    store = Store(old, by="ann via vmtui rm")
    store.record(WEB, "delete", "done")
    assert [(event.verb, event.by, event.message) for event in store.history(limit=None)] == [
        ("create", "", "old"),
        ("delete", "ann via vmtui rm", ""),
    ]
    assert store.profiles() == ("t",)
    assert store.interrupted() == {WEB: "create"}
    store.close()
    db = sqlite3.connect(old)
    assert db.execute("pragma user_version").fetchone() == (SCHEMA_VERSION,)
    fresh = sqlite3.connect(":memory:")
    Store(old.with_name("fresh.db")).close()
    fresh = sqlite3.connect(old.with_name("fresh.db"))
    for table in ("event", "resource", "approval", "profile", "journal"):
        columns = [[row[1:4] for row in each.execute(f"pragma table_info({table})")] for each in (db, fresh)]
        assert columns[0] == columns[1]
        assert columns[0]
    db.close()
    fresh.close()


def test_several_that_open_an_old_database_at_once_upgrade_it_once(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmtui.engine.store.BUSY_S", 120.0)
    failed: list[Exception] = []

    def use() -> None:
        try:
            store = Store(old)
            store.record(WEB, "start", "done")
            store.close()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    store = Store(old)
    assert len(store.history(limit=None)) == 9
    store.close()


def test_a_database_of_a_later_version_is_left_alone(old: Path) -> None:
    db = sqlite3.connect(old)
    db.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(OperationFailed, match="another version"):
        Store(old)


def test_an_old_database_that_cannot_be_written_says_so(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmtui.engine.store.BUSY_S", 0.1)
    other = sqlite3.connect(old, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(Exception, match="in use"):
        Store(old)
    other.execute("rollback")
    other.close()
    Store(old).close()


@pytest.mark.parametrize(("sudo", "shown"), [("ann", "ann (sudo) via x"), ("", "root via x"), ("root", "root via x")])
def test_who_acts_is_the_person_behind_sudo(monkeypatch: pytest.MonkeyPatch, sudo: str, shown: str) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", sudo)
    assert person.acting("x") == shown


def test_without_root_sudo_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    monkeypatch.setenv("SUDO_USER", "ann")
    assert person.acting("x") == "uid 54321 via x"
