"""What should exist: one SQLite database per workspace. It never says that something runs."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from vmtui.core.backend import Context, Desired
from vmtui.core.errors import Fault, LockHeld, OperationFailed
from vmtui.core.policy import Target
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import SPECS, Spec, decode, from_json, to_json
from vmtui.host.files import FULL, in_words, remedy, write_atomic
from vmtui.host.paths import Paths

SCHEMA_VERSION = 3
EVENTS_KEPT = 10_000
RESERVE = "reserve"
RESERVE_BYTES = 512 << 10  # a hundred pages for the log of what is taken back
DATABASE = "state.db"
BUSY_S = 10.0
CACHE_KIB = 512  # the kernel has the pages too
BY_REF = " where profile = ? and kind = ? and name = ?"
# In the JSON of a Desired that publishes ports; inside a JSON string the quotes would be escaped.
PUBLISHED = b'"ports":["'
SCHEMA = """
create table if not exists resource (
    profile text not null, kind text not null, name text not null,
    backend text not null, desired blob not null, intent text not null,
    restarts integer not null default 0, ready text not null default '', applied_at real not null,
    owner text not null default '',
    primary key (profile, kind, name)
) without rowid;
create table if not exists profile (name text primary key, path text not null, applied_at real not null);
create table if not exists journal (
    id integer primary key, run text not null, ref text not null, verb text not null, at real not null
);
create table if not exists event (
    id integer primary key, at real not null,
    ref text not null, verb text not null, result text not null, message text not null,
    by_whom text not null default ''
);
"""
APPROVALS = """
create table if not exists approval (
    id integer primary key, state text not null, expires_at real not null, asker_pid text not null,
    asked blob not null, answered_by text not null default ''
)
"""
SCHEMA += APPROVALS + ";"
# What makes a database of an older version one of the next.
UPGRADES = {
    1: ("alter table event add column by_whom text not null default ''",),
    2: ("alter table resource add column owner text not null default ''", APPROVALS),
}


class Intent(StrEnum):
    """What was last asked of a workload; a restart policy never works against it."""

    UP = "up"
    STOPPED = "stopped"


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A row: what a resource was last made from, and what was asked of it since. `owner` made it, "" is not known."""

    desired: Desired[Any]
    intent: Intent
    restarts: int = 0
    ready: str = ""
    owner: str = ""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the history. `result` is done, failed, undone or, for ends that nobody asked for, a phase.

    `by` is who did it and through what; "" is not known.
    """

    id: int
    at: float
    ref: str
    verb: str
    result: str
    message: str = ""
    by: str = ""


def open_context(paths: Paths, *, read_only: bool = False) -> Context:
    """The workspace's identity. It lives in a file of its own: a lost database must not orphan what carries it.

    With `read_only` nothing is made that is not there.
    """
    file = paths.state / "workspace"
    try:
        if not read_only:
            paths.make()
        if not read_only and not file.exists():
            draft = paths.state / f".workspace.{os.getpid()}"
            write_atomic(draft, secrets.token_hex(4).encode())
            with contextlib.suppress(FileExistsError):
                os.link(draft, file)
            draft.unlink()
        identity = file.read_text().strip()
    except OSError as error:
        raise _unusable(error, paths) from None
    if len(identity) != 8 or not set(identity) <= set("0123456789abcdef"):
        look = f"grep -rhoE 'vmtui:[0-9a-f]{{8}}' {paths.state}/resources | sort -u"
        raise OperationFailed(
            f"{file} is damaged: it must hold eight hex digits", hint=f"they are in the marks: {look}"
        )
    return Context(paths=paths, workspace=identity)


def _unusable(error: OSError, paths: Paths) -> OperationFailed:
    """Which of the directories cannot be used, and the variable that names another."""
    path = Path(str(error.filename or paths.state))
    name, root, variable = next(
        (name, root, variable)
        for name, root, variable in (
            ("cache", paths.cache, "XDG_CACHE_HOME"),
            ("runtime", paths.runtime, "XDG_RUNTIME_DIR"),
            ("state", paths.state, "XDG_STATE_HOME"),
        )
        if name == "state" or root.is_relative_to(path)
    )
    hint = f"df -h {root.parent}" if error.errno in FULL else f"export {variable}=FOLDER"
    return OperationFailed(f"cannot use the {name} directory {root}: {in_words(error)}", hint=hint)


def damaged(path: Path, error: sqlite3.Error) -> Fault:
    """What went wrong with the database, and how to go on without it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LockHeld(f"{path} is in use: {error}", hint=f"fuser -v {path}")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return OperationFailed(f"{path} cannot be written: {error}", hint=f"df -h {path.parent}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return OperationFailed(f"{path} cannot be used: {error}", hint=f"ls -ld {path.parent} {path}*")
    return OperationFailed(
        f"{path} cannot be used: {error}",
        # All of its files: the log of one database must never be read into the next.
        hint=f"mv -t /var/tmp {path}*; apply your profiles again: what exists is found on the host",
    )


class Store:
    """The database. Every method is one transaction; readers never wait (WAL).

    With `read_only` nothing is written, not even what SQLite keeps beside it: that is there while a writer has it open.
    """

    def __init__(self, path: Path, *, by: str = "", read_only: bool = False) -> None:
        self._path = path
        self._by = by
        self.read_only = read_only
        try:
            where = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
            self._db = sqlite3.connect(where, isolation_level=None, timeout=BUSY_S, uri=True)
            if not read_only:
                _use_wal(self._db)
            self._db.execute("pragma synchronous = normal")
            self._db.execute(f"pragma cache_size = -{CACHE_KIB}")
            version = self._db.execute("pragma user_version").fetchone()[0]
            if version == 0 and not read_only:
                self._db.executescript(SCHEMA)
                self._db.execute(f"pragma user_version = {SCHEMA_VERSION}")
            elif version in UPGRADES and not read_only:
                self._upgrade()
            elif version != SCHEMA_VERSION:
                raise OperationFailed(
                    f"{path} was written by another version of vmtui (schema {version})",
                    hint="pip install --upgrade vmtui",
                )
        except sqlite3.DatabaseError as error:
            raise damaged(path, error) from None

    def _upgrade(self) -> None:
        """One transaction, so that what is killed leaves the old version whole, and of two only one upgrades."""
        self._db.execute("begin immediate")
        try:
            version = self._db.execute("pragma user_version").fetchone()[0]
            while version in UPGRADES:
                for statement in UPGRADES[version]:
                    self._db.execute(statement)
                version += 1
            self._db.execute(f"pragma user_version = {version}")
            self._db.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("rollback")
            raise

    @property
    def path(self) -> Path:
        return self._path

    @property
    def connection(self) -> sqlite3.Connection:
        """For what has tables of its own here."""
        return self._db

    def make_reserve(self) -> None:
        """Keep room that a full disk cannot take, for what takes things back or down. Raises OperationFailed."""
        reserve = self._path.with_name(RESERVE)
        if reserve.exists():
            return
        try:
            with reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            reserve.unlink(missing_ok=True)
            reason = f"less than {RESERVE_BYTES >> 10} KiB left" if error.errno in FULL else in_words(error)
            raise OperationFailed(f"{reserve.parent}: {reason}", hint=remedy(error, reserve.parent)) from None

    def release_reserve(self) -> None:
        """From here on things only become fewer."""
        self._path.with_name(RESERVE).unlink(missing_ok=True)

    def close(self) -> None:
        self._db.close()

    # Resources

    def put(self, desired: Desired[Any], intent: Intent, *, owner: str = "") -> None:
        """`owner` is whose it is if it is new here; what is known keeps the one that it has."""
        ref = desired.ref
        self._db.execute(
            "insert into resource (profile, kind, name, backend, desired, intent, applied_at, owner)"
            " values (?,?,?,?,?,?,?,?)"
            " on conflict do update set backend = excluded.backend, desired = excluded.desired,"
            " intent = excluded.intent, applied_at = excluded.applied_at",
            (ref.profile, ref.kind, ref.name, desired.backend, to_json(desired), intent, time.time(), owner),
        )

    def put_back(self, was: Applied) -> None:
        """A row as it was."""
        self.put(was.desired, was.intent, owner=was.owner)

    def put_many(self, rows: Iterable[tuple[Ref, str, bytes, Intent]]) -> None:
        """Many new ones at once: the ref, the backend, the Desired as JSON, and the intent."""
        at = time.time()
        with self._db:
            self._db.execute("begin")
            self._db.executemany(
                "insert into resource (profile, kind, name, backend, desired, intent, applied_at)"
                " values (?,?,?,?,?,?,?)",
                ((ref.profile, ref.kind, ref.name, name, desired, intent, at) for ref, name, desired, intent in rows),
            )

    def remove(self, ref: Ref) -> None:
        self._db.execute("delete from resource" + BY_REF, _key(ref))

    def get(self, ref: Ref) -> Applied | None:
        row = self._db.execute(
            "select desired, intent, restarts, ready, owner from resource" + BY_REF,
            _key(ref),
        ).fetchone()
        return None if row is None else _applied(ref, *row)

    def backend_of(self, ref: Ref) -> str | None:
        """The backend that it was made with."""
        row = self._db.execute("select backend from resource" + BY_REF, _key(ref)).fetchone()
        return None if row is None else row[0]

    def published(self, profile: str) -> dict[Ref, Spec]:
        """The specs of a profile that publish ports."""
        rows = self._db.execute(
            "select kind, name, desired, intent from resource where profile = ? and instr(desired, ?)",
            (profile, PUBLISHED),
        )
        read = [
            _applied(Ref(profile, Kind(kind), name), desired, intent, 0, "")
            for kind, name, desired, intent in rows
            if kind in set(Kind)
        ]
        return {row.desired.ref: row.desired.spec for row in read if row is not None}

    def published_by(self, ref: Ref) -> Spec | None:
        """Its spec if it publishes ports."""
        row = self._db.execute(
            "select desired, intent from resource" + BY_REF + " and instr(desired, ?)", (*_key(ref), PUBLISHED)
        ).fetchone()
        read = None if row is None else _applied(ref, row[0], row[1], 0, "")
        return None if read is None else read.desired.spec

    def of_profile(self, profile: str) -> dict[Ref, Applied]:
        rows = self._db.execute(
            "select kind, name, desired, intent, restarts, ready, owner from resource where profile = ?", (profile,)
        )
        found = {Ref(profile, Kind(kind), name): rest for kind, name, *rest in rows if kind in set(Kind)}
        read = {ref: _applied(ref, *rest) for ref, rest in found.items()}
        return {ref: row for ref, row in read.items() if row is not None}

    def mentioning(self, ref: Ref) -> dict[Ref, Applied]:
        """Those of its profile whose spec has its name in it: what refers to it is among them."""
        rows = self._db.execute(
            "select kind, name, desired, intent, restarts, ready, owner from resource"
            " where profile = ? and instr(cast(desired as text), ?)",
            (ref.profile, ref.name),
        )
        found = {Ref(ref.profile, Kind(kind), name): rest for kind, name, *rest in rows if kind in set(Kind)}
        read = {other: _applied(other, *rest) for other, rest in found.items() if other != ref}
        return {other: row for other, row in read.items() if row is not None}

    def everything(self) -> dict[Ref, Applied]:
        return {ref: row for profile in self.profiles() for ref, row in self.of_profile(profile).items()}

    def target(self, ref: Ref) -> Target:
        """It as permissions see it; what is not known here has neither labels nor an owner."""
        row = self._db.execute("select desired, owner from resource" + BY_REF, _key(ref)).fetchone()
        return Target(ref) if row is None else Target(ref, _labels(row[0]), row[1])

    def targets(self) -> dict[Ref, Target]:
        """Everything that is known here, as permissions see it."""
        rows = self._db.execute("select profile, kind, name, desired, owner from resource")
        found = ((Ref(profile, Kind(kind), name), *rest) for profile, kind, name, *rest in rows if kind in set(Kind))
        return {ref: Target(ref, _labels(desired), owner) for ref, desired, owner in found}

    @property
    def version(self) -> tuple[int, int]:
        """Another one after each change, whoever makes it."""
        return self._db.execute("pragma data_version").fetchone()[0], self._db.total_changes

    def set_intent(self, ref: Ref, intent: Intent) -> None:
        self._db.execute(
            "update resource set intent = ?" + BY_REF,
            (intent, *_key(ref)),
        )

    def set_restarts(self, ref: Ref, restarts: int) -> None:
        self._db.execute("update resource set restarts = ?" + BY_REF, (restarts, *_key(ref)))

    def set_ready(self, ref: Ref, instance: str) -> None:
        """Remember which instance (process) was seen ready: its log need not be read again."""
        self._db.execute("update resource set ready = ?" + BY_REF, (instance, *_key(ref)))

    # Profiles

    def put_profile(self, name: str, path: str) -> None:
        """`path` is that of its file; of one that has none what is known stays."""
        self._db.execute(
            "insert into profile values (?,?,?) on conflict do update set applied_at = excluded.applied_at,"
            " path = case excluded.path when '' then path else excluded.path end",
            (name, path, time.time()),
        )

    def remove_profile(self, name: str) -> None:
        self._db.execute("delete from profile where name = ?", (name,))

    def profile_paths(self) -> dict[str, str]:
        """The files from which profiles were applied last."""
        return dict(self._db.execute("select name, path from profile where path != '' order by name"))

    def profiles(self) -> tuple[str, ...]:
        rows = self._db.execute("select name from profile union select profile from resource order by 1")
        return tuple(name for (name,) in rows)

    # Journal

    def journal_begin(self, run: str, ref: Ref, verb: str) -> int:
        cursor = self._db.execute(
            "insert into journal (run, ref, verb, at) values (?,?,?,?)",
            (run, str(ref), verb, time.time()),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def journal_end(self, entry: int) -> None:
        self._db.execute("delete from journal where id = ?", (entry,))

    def interrupted(self) -> dict[Ref, str]:
        """Steps of runs that ended in the middle: the ref and what was being done to it."""
        rows = self._db.execute("select ref, verb from journal order by id")
        found = {}
        for ref, verb in rows:
            with contextlib.suppress(ValueError):
                found[Ref.parse(ref)] = verb
        return found

    def journal_settle(self, refs: Iterable[Ref]) -> None:
        """Forget the open steps of these resources: they have been looked at and brought in order."""
        self._db.executemany("delete from journal where ref = ?", [(str(ref),) for ref in refs])

    # History

    def record(self, ref: Ref, verb: str, result: str, message: str = "") -> None:
        cursor = self._db.execute(
            "insert into event (at, ref, verb, result, message, by_whom) values (?,?,?,?,?,?)",
            (time.time(), str(ref), verb, result, message, self._by),
        )
        if cursor.lastrowid is not None and cursor.lastrowid % 1000 == 0:
            self._db.execute("delete from event where id <= ?", (cursor.lastrowid - EVENTS_KEPT,))

    def history(self, *, limit: int | None, after: int = 0) -> list[Recorded]:
        rows: Sequence[tuple[Any, ...]] = self._db.execute(
            "select id, at, ref, verb, result, message, by_whom from event where id > ? order by id desc limit ?",
            (after, -1 if limit is None else limit),
        ).fetchall()
        return [
            Recorded(id=number, at=at, ref=ref, verb=verb, result=result, message=message, by=by)
            for number, at, ref, verb, result, message, by in reversed(rows)
        ]


def _use_wal(db: sqlite3.Connection) -> None:
    """SQLite's own time-out does not hold for this change, which two that begin at once both want to make."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _key(ref: Ref) -> tuple[str, str, str]:
    return ref.profile, ref.kind, ref.name


class _Row(msgspec.Struct):
    ref: Ref
    backend: str
    spec: msgspec.Raw
    options: Any = None
    spec_hash: str = ""


class _Labelled(msgspec.Struct):
    labels: dict[str, str] = {}


class _LabelledRow(msgspec.Struct):
    spec: _Labelled


def _labels(desired: bytes) -> dict[str, str]:
    """Those of a Desired as JSON; none of one that cannot be read."""
    try:
        return msgspec.json.decode(desired, type=_LabelledRow).spec.labels
    except (msgspec.MsgspecError, ValueError):
        return {}


def _applied(ref: Ref, desired: bytes, intent: str, restarts: int, ready: str, owner: str = "") -> Applied | None:
    """None for a row that cannot be read: it counts as lost, and what is on the host is found by its marks."""
    try:
        row = msgspec.json.decode(desired, type=_Row)
        spec: Spec = from_json(bytes(row.spec), SPECS[ref.kind])
        made = Desired(ref=ref, backend=row.backend, spec=spec, options=row.options, spec_hash=row.spec_hash)
        return Applied(desired=made, intent=Intent(intent), restarts=restarts, ready=ready, owner=owner)
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None


def with_options(desired: Desired[Any], options_type: type[msgspec.Struct] | None) -> Desired[Any]:
    """The same with its options in the backend's own type, as they were before they were stored."""
    if options_type is None or desired.options is None or isinstance(desired.options, options_type):
        return desired
    return msgspec.structs.replace(desired, options=decode(desired.options, options_type))
