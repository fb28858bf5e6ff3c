"""Kills `vmtui` at each point of what it does with a profile, and holds the next run to bringing all in order.

    python -m tests.support.real_kills ACT up|down FILE [ABOUT]

Run on a machine of its own, in a workspace of its own. ACT is killed: `up`, `down`, or a verb on what is up, such as
"restart web". The second word is what follows: after `up` the profile must be up, and the run after that change
nothing. In the end all is taken down, and nothing is left.

A point is each beginning and each end of a step in the journal ("step"), each other write to the database ("write"),
each progress that a step reports ("progress"), each start of an outside tool, which then goes on without us ("tool"),
and each change of a directory ("file"). ABOUT is a regular expression that the names of points must match. Prints how
many points there were.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import crash
from tests.support.hostview import HostView
from tests.support.machine import OF_A_WORKSPACE
from tests.support.remains import remains
from vmtui.backends.tap.lock import ROOT as TAP
from vmtui.core.events import Event, StepProgressed
from vmtui.core.resource import Ref
from vmtui.engine import registry, workspace
from vmtui.engine.store import Intent, Store, open_context
from vmtui.headless import arguments, session
from vmtui.host.paths import Paths
from vmtui.profile import load
from vmtui.profile.schema import Profile

MOST_POINTS = 500
LIMIT_S = 180


def die_at(point: int, where: Path, about: str) -> None:
    """Let this process end by SIGKILL at its `point`-th point that is named like `about`; `where` then has its name."""
    left, wanted = point, re.compile(about)

    def tick(name: str) -> None:
        nonlocal left
        if wanted.search(name):
            left -= 1
            if left == 0:
                write(where, name)
                os.kill(os.getpid(), signal.SIGKILL)

    def then_tick(act: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def done(*args: Any, **how: Any) -> Any:
            result = act(*args, **how)
            tick(f"{kind} {act.__name__} {' '.join(map(str, args[:2]))}")
            return result

        return done

    class Counted(Store):
        def __init__(self, path: Path, *, by: str = "", read_only: bool = False) -> None:
            super().__init__(path, by=by, read_only=read_only)
            self._writes = "write"
            self._db = crash.ticking(self._db, lambda _=None: tick(self._writes))
            self._open: dict[int, str] = {}

        def journal_begin(self, run: str, ref: Ref, verb: str) -> int:
            self._writes = f"step begin {verb} {ref}"
            entry = super().journal_begin(run, ref, verb)
            self._writes, self._open[entry] = "write", f"{verb} {ref}"
            return entry

        def journal_end(self, entry: int) -> None:
            self._writes = f"step end {self._open.pop(entry)}"
            super().journal_end(entry)
            self._writes = "write"

    emit, spawn = session.Session.emit, asyncio.create_subprocess_exec

    def emitted(self: session.Session, event: Event) -> None:
        emit(self, event)
        if isinstance(event, StepProgressed):
            tick(f"progress {event.action} {event.ref}: {event.message}")

    async def spawned(*argv: Any, **how: Any) -> asyncio.subprocess.Process:
        process = await spawn(*argv, **how)
        tick(f"tool {' '.join(map(str, argv[:6]))}")
        return process

    workspace.Store = Counted  # type: ignore[attr-defined]
    session.Session.emit = emitted  # type: ignore[method-assign]
    asyncio.create_subprocess_exec = spawned
    tempfile.mkstemp = then_tick(tempfile.mkstemp, "file")
    for name in ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "symlink", "link"):
        setattr(os, name, then_tick(getattr(os, name), "file"))


def write(path: Path, text: str) -> None:
    """With what is not a point."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, text.encode())
    os.close(fd)


def vmtui(folder: Path, *argv: str, arm: Callable[[], None] = lambda: None) -> int | None:
    """Run the command in a child, since its threads must not be ours; its exit code, None if it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(LIMIT_S)
            for fd, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
            arm()
            code = arguments.run([*argv, "--json"])
            sys.stdout.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGKILL else code


class Kills:
    def __init__(self, act: str, then: str, file: Path, about: str = "") -> None:
        self.act = act
        self.then = then
        self.about = about
        self.paths = Paths.from_environment()
        self.paths.make()
        self.folder = Path(os.environ["TMPDIR"])
        profile: Profile = load.load(file, registry.option_types)
        self.up = ["--profile", str(file)]
        # By its file, since the kill may have come before anything was known by name.
        self.down = [*self.up, "--down", "--purge", "--yes"]
        self.tokens = [item.ref.token(open_context(self.paths).workspace) for item in profile.resources]

    def said(self) -> str:
        return (self.folder / "stdout").read_text() + (self.folder / "stderr").read_text()

    def ok(self, *argv: str) -> dict[str, Any]:
        """It must end with code 0; its summary."""
        code = vmtui(self.folder, *argv)
        assert code == 0, f"{' '.join(argv)} ended with {code}\n{self.said()}"
        summary: dict[str, Any] = json.loads((self.folder / "stdout").read_text().splitlines()[-1])
        return summary

    def run_up(self) -> None:
        """All is ready then, the restart policy of what runs acts, and no step is open."""
        found = self.ok(*self.up)["resources"]
        assert all(resource["ready"] for resource in found), found
        running = {resource["ref"]["name"] for resource in found if resource["phase"] == "running"}
        store = Store(self.paths.state / "state.db")
        up = {ref.name for ref, row in store.everything().items() if row.intent is Intent.UP}
        open_steps = store.interrupted()
        store.close()
        assert running <= up, f"to be stopped, though it runs: {running - up}"
        assert not open_steps, f"open steps: {open_steps}"

    def view(self) -> HostView:
        seen = HostView.take((self.paths.state, self.paths.runtime, TAP))
        known = {str(self.paths.state / name) for name in OF_A_WORKSPACE}
        ours = frozenset(line for line in seen.sections["cgroups"] if any(token in line for token in self.tokens))
        return HostView({**seen.sections, "cgroups": ours, "files": seen.sections["files"] - known})

    def every_point(self) -> int:
        before = self.view()
        argv = {"up": self.up, "down": self.down}.get(self.act, self.act.split())
        for point in itertools.count(1):
            assert point < MOST_POINTS, "it never comes to its end"
            began = time.monotonic()
            if self.act != "up":
                self.run_up()
            where = self.folder / "where"
            write(where, "its end")
            arm = partial(die_at, point, where, self.about)
            code = vmtui(self.folder, *argv, arm=arm)
            assert code in (None, 0), f"point {point} ({where.read_text()}): ended with {code}\n{self.said()}"
            try:
                if self.then == "up":
                    self.run_up()
                    assert self.ok(*self.up)["changes"] == 0, self.said()
                self.ok(*self.down)
                left = asyncio.run(remains(lambda: before.diff(self.view())))
                assert left == "", f"left behind:\n{left}"
            except AssertionError as error:
                raise AssertionError(f"{self.act} killed at point {point} ({where.read_text()}): {error}") from error
            print(f"{point}: {where.read_text()}, {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
            if code == 0:
                return point
        raise AssertionError


if __name__ == "__main__":
    print(Kills(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]).every_point())
