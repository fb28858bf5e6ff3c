"""Tells a lab that stands still from one that is slow: a processor of it beats no more, though it had time."""

from __future__ import annotations

import os
from pathlib import Path

LOOK_S = 1.0  # how often it is to be looked at
BOOT = "no beat since it began"
NANOSECONDS = 1e9


class Pulse:
    """`folder` has a file `beat-N` for each processor, which the guest writes anew every two seconds.

    What counts is the time that the machine could have run: a look that comes late counts as one in time (the host
    slept, or starved us), and what QEMU waited for a processor of the host (`waited_s`, since it began) does not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._looked: float | None = None
        self._waited_s = 0.0
        self._beats: dict[str, bytes] = {}
        self._still_s = {BOOT: 0.0}

    def look(self, now: float, waited_s: float) -> tuple[str, float]:
        """The beat that has been missing longest, and for how many seconds."""
        passed = 0.0 if self._looked is None else min(now - self._looked, 2 * LOOK_S)
        passed = max(0.0, passed - (waited_s - self._waited_s))
        self._looked, self._waited_s = now, waited_s
        for name in self._still_s:
            self._still_s[name] += passed
        for file in self.folder.glob("beat-*"):
            beat = file.read_bytes()
            if beat and beat != self._beats.get(file.name):  # it is empty while it is written
                self._still_s.pop(BOOT, None)
                self._beats[file.name], self._still_s[file.name] = beat, 0.0
        return max(self._still_s.items(), key=lambda item: item[1])


def waited_s(pid: int) -> float:
    """For how long the thread of that process that fared worst was ready to run and did not; 0 where none says so."""
    most = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            most = max(most, int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1]))
    except (OSError, IndexError):
        pass
    return most / NANOSECONDS
