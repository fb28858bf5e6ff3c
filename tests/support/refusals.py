"""Runs `vmtui` on what it must refuse, twice, and holds it to what every failure owes its reader and the host.

One clear error with a hint and the documented code; the same as records with --json; nothing that a terminal would
obey; no trace on the host, in the state directory, or in the database.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.support import claims
from tests.support.cli import Cli
from tests.support.golden import ROOT
from tests.support.hostview import HostView
from vmtui.core.backend import Context
from vmtui.core.resource import Kind, Ref
from vmtui.engine.store import Store, open_context
from vmtui.host.paths import Paths

EVENTS = Draft202012Validator(json.loads((ROOT / "docs/schema/events.json").read_text()))
# Of the state directory, when nothing is left: the identity, the lock, the database.
KEPT = frozenset({"workspace", "lock", "state.db", "state.db-wal", "state.db-shm"})
# C0 but newline, DEL, C1 (ECMA-48), and the bidirectional controls (Unicode TR9): none of them may reach a terminal.
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
OURS = re.compile(r"\b[A-Z][a-z]\w*(?:Error|Exception)\b|object at 0x|\[Errno ")  # how Python speaks of errors
SETTLE_S = 60.0  # for processes that are on their way out


class Place:
    """A folder with a profile and its inputs, and a workspace of its own; the cache is shared."""

    def __init__(self, cache: Path, image: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))  # short: unix socket paths
        self.root.chmod(0o711)  # for runs as another user
        self.folder = self.root / "files"
        self.folder.mkdir()
        self.paths = Paths(self.root / "s" / "vmtui", cache / "vmtui", self.root / "r" / "vmtui")
        self.cli = Cli(self.paths, self.folder)
        self.environment: dict[str, str] = {}
        self.prefix: list[str] = []
        self.argv: list[str] = []
        self.words = {
            "{dir}": str(self.folder),
            "{image}": image,
            "{port}": str(claims.port()),
            "{net}": claims.subnet(),
        }

    def fill(self, text: str, quote: Callable[[str], str] = str) -> str:
        """`text` with the words of this place in it."""
        for word, value in self.words.items():
            text = text.replace(word, quote(value))
        return text

    def vmtui(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        """Run it as this place is set up; stdout and stderr as bytes."""
        return subprocess.run(
            [*self.prefix, *(self.argv or self.cli.argv()), *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**self.cli.environment, **self.environment},
            cwd=self.folder,
            timeout=300,
            check=False,
        )

    def write(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def context(self) -> Context:
        """The workspace's identity, once it exists."""
        return open_context(self.paths)

    def remove(self) -> None:
        """Whatever a failed test left, then the folder."""
        left = self.paths.state / "resources"
        if left.exists() or any(self.paths.runtime.glob("*")):
            for profile in ("bad", "other"):
                subprocess.run(
                    self.cli.argv("down", profile, "--purge", "--yes"),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    env=self.cli.environment,
                    timeout=300,
                    check=False,
                )
        shutil.rmtree(self.root, ignore_errors=True)


Prepare = Callable[[Place], AbstractContextManager[object] | None]


@dataclass(frozen=True)
class Refusal:
    """One bad input. `{dir}` in `profile`, `error`, `where` and `hint` stands for the folder of the profile.

    `error` is what the one error says and `hint` what its hint says, both regular expressions; `prepare` makes files
    or occupies something, and may return a context manager that lets go of it.
    """

    name: str
    profile: str | bytes
    code: int
    error: str
    hint: str = "."
    where: str = ""
    details: str = ""
    prepare: Prepare | None = None
    args: tuple[str, ...] = ()
    result: str = "failed"
    traces: bool = True  # whether the database can be asked

    @property
    def whole(self) -> str:
        """The place and the error, as one expression."""
        return f"{self.where}.*{self.error}" if self.where else self.error


def profile_of(place: Place, case: Refusal) -> str:
    text = case.profile
    if isinstance(text, str):
        text = place.fill(text).encode("utf-8", "surrogateescape")
    return str(place.write("bad.toml", text))


def check(place: Place, case: Refusal) -> None:
    """Both runs, and what is left after each."""
    with ExitStack() as stack:
        if case.prepare is not None and (held := case.prepare(place)) is not None:
            stack.enter_context(held)
        path = place.folder / "bad.toml"
        if not path.exists():
            profile_of(place, case)
        acts = case.code in (71, 124)
        before = traces(place, host=acts) if case.traces else None
        args = ["--profile", str(path), *case.args]
        with ThreadPoolExecutor(1) as beside:  # what changes nothing may run twice at once
            second = None if acts else beside.submit(place.vmtui, *args, "--json")
            assert_told(place, case, place.vmtui(*args))
            assert_recorded(place, case, second.result() if second else place.vmtui(*args, "--json"))
        if before is not None:
            assert_as_before(place, before, host=acts)


def assert_told(place: Place, case: Refusal, done: subprocess.CompletedProcess[bytes]) -> None:
    """For people: one error, a hint, nothing on stdout."""
    said = done.stderr.decode("utf-8", "replace")
    shown = f"{case.name} ended with {done.returncode}\n{done.stdout.decode('utf-8', 'replace')}\n{said}"
    assert done.returncode == case.code, shown
    assert_harmless(done, shown)
    lines = said.splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, shown
    assert re.search(place.fill(case.whole, re.escape), errors[0]), f"{case.error!r} is not in\n{shown}"
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    if case.hint:
        assert len(hints) == 1, shown
        assert re.search(place.fill(case.hint, re.escape), hints[0]), f"{case.hint!r} is not in\n{shown}"
    if case.details:
        details = "\n".join(line.removeprefix("  | ") for line in lines if line.startswith("  | "))
        assert re.search(place.fill(case.details, re.escape), details), shown


def assert_recorded(place: Place, case: Refusal, done: subprocess.CompletedProcess[bytes]) -> None:
    """For programs: records on stdout, the first a version, the last a summary, one of them the error."""
    shown = f"{case.name} --json ended with {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"
    assert done.returncode == case.code, shown
    assert_harmless(done, shown)
    assert done.stderr == b"", shown
    records: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    for record in records:
        EVENTS.validate(record)
    assert records[0]["event"] == "version", shown
    assert records[-1]["event"] == "summary", shown
    assert records[-1]["exit_code"] == case.code, shown
    assert records[-1]["result"] == case.result, shown
    assert [record["event"] for record in records].count("summary") == 1
    errors = [record for record in records if record["event"] == "diagnostic" and record["level"] == "error"]
    assert len(errors) == 1, shown
    where = errors[0].get("where", "")
    line = f"{where}: {errors[0]['message']}" if where else errors[0]["message"]
    assert re.search(place.fill(case.whole, re.escape), line.replace("\n", " "), re.DOTALL), shown
    assert errors[0]["code"] not in ("", "internal", "fault"), shown
    if case.hint:
        assert re.search(place.fill(case.hint, re.escape), errors[0].get("hint", "")), shown


def assert_harmless(done: subprocess.CompletedProcess[bytes], shown: str) -> None:
    """Nothing that a terminal obeys, nothing that only we understand."""
    for stream in (done.stdout, done.stderr):
        text = stream.decode("utf-8", "backslashreplace")
        assert not OBEYED.search(text), shown
        assert "Traceback" not in text, shown
        assert "internal error" not in text, shown
        assert not OURS.search(text), shown


@dataclass(frozen=True)
class Traces:
    view: HostView
    rows: tuple[str, ...]
    files: frozenset[str]


def traces(place: Place, *, host: bool = True) -> Traces:
    """What the workspace has on the host, in its database and in its directories."""
    context = place.context()
    refs = [Ref("bad", kind, name) for kind in Kind for name in ("one", "two", "net", "vm", "box")]
    tokens = [ref.token(context.workspace) for ref in refs]
    tokens += [refs_token(context, ref, other) for ref in refs for other in refs if other.kind is Kind.NETWORK]
    view = HostView.take((), [context.workspace, *tokens, str(place.root)]) if host else HostView({})
    if (place.paths.state / "state.db").exists():
        store = Store(place.paths.state / "state.db")
        try:
            rows = (*map(str, store.everything()), *store.profiles(), *map(str, store.interrupted()))
        finally:
            store.close()
    else:
        rows = ()
    found = {
        str(Path(root, name).relative_to(directory.parent.parent))
        for directory in (place.paths.state, place.paths.runtime)
        for root, folders, files in os.walk(directory)
        for name in (*folders, *files)
        if not (Path(root) == place.paths.state and name in KEPT)
    }
    return Traces(view, rows, frozenset(found))


def refs_token(context: Context, consumer: Ref, network: Ref) -> str:
    return consumer.token(context.workspace, str(network), "0")


def assert_as_before(place: Place, before: Traces, *, host: bool = True) -> None:
    """Waits a moment for processes that are about to end."""
    deadline = time.monotonic() + SETTLE_S
    while (difference := _difference(before, traces(place, host=host))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not difference, f"left behind:\n{difference}"


def _difference(before: Traces, after: Traces) -> str:
    lines = [before.view.diff(after.view)]
    lines += [f"database: {row}" for row in after.rows if row not in before.rows]
    lines += [f"file: {name}" for name in sorted(after.files - before.files)]
    return "\n".join(filter(None, lines))
