"""Tells a lab that stands still from one that is slow: a processor of it beats no more, though it had time."""

from __future__ import annotations

import math
import os
from pathlib import Path

LOOK_S = 1.0  # how often it is to be looked at
BOOT = "no beat since it began"
BOOT_S = 60.0
RUNNING = "out/running"
NANOSECONDS = 1e9


class Pulse:
    """`folder` has what the guest writes: `beat-N` anew every two seconds, on each of its processors, and `out/running`
    (tests/lab/progress.py) when a test begins. It stands still when a beat is `still_s` old, or the boot or a test has
    taken so much longer than it may: nothing in there has seen to that.

    What counts is the time that the machine could have run: a look that comes late counts as one in time (the host
    slept, or starved us), and what QEMU waited for a processor of the host (`waited_s`, since it began) does not.
    """

    def __init__(self, folder: Path, still_s: float) -> None:
        self.folder, self.still_s = folder, still_s
        self._looked: float | None = None
        self._waited_s = 0.0
        self._said: dict[str, bytes] = {}
        self._old_s = {BOOT: 0.0}

    def look(self, now: float, waited_s: float) -> str | None:
        """Why it stands still, if it does."""
        passed = 0.0 if self._looked is None else min(now - self._looked, 2 * LOOK_S)
        passed = max(0.0, passed - (waited_s - self._waited_s))
        self._looked, self._waited_s = now, waited_s
        for name in self._old_s:
            self._old_s[name] += passed
        self._read()
        for name, old_s in self._old_s.items():
            if old_s > self.still_s + self._own_s(name):
                return f"{name} for {old_s:.0f} s: {self._said.get(name, b'').decode(errors='replace').strip()}"
        return None

    def _read(self) -> None:
        for file in self.folder.glob("beat-*"):
            self._note(file.name, file.read_bytes())
            self._old_s.pop(BOOT, None)
        try:
            self._note(RUNNING, (self.folder / RUNNING).read_bytes())
        except FileNotFoundError:  # no test is, or not any more
            self._old_s.pop(RUNNING, None)

    def _note(self, name: str, said: bytes) -> None:
        if name not in self._old_s or (said and said != self._said.get(name)):  # it is empty while it is written
            self._said[name], self._old_s[name] = said, 0.0

    def _own_s(self, name: str) -> float:
        if name != RUNNING:
            return BOOT_S if name == BOOT else 0.0
        try:
            return float(self._said[name].split()[0])
        except (IndexError, ValueError):  # just being written
            return math.inf


def waited_s(pid: int) -> float:
    """For how long the thread of that process that fared worst was ready to run and did not; 0 where none says so."""
    most = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            most = max(most, int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1]))
    except (OSError, IndexError):
        pass
    return most / NANOSECONDS
