"""Threads for what would hold up a disk's loop: reads of what is not in the page cache, flushes, discards."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

MAX_THREADS = 8  # that many requests of a disk are under way at once
STOP_S = 1.0


class Pool:
    """Threads start when there is work for them: a pool can be made where no thread may run yet."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._work, self._rest = threading.Condition(self._lock), threading.Condition(self._lock)
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads: list[threading.Thread] = []
        self._waiting = self._busy = 0
        self._closed = False

    def submit(self, job: Callable[[], None]) -> None:
        """Run it soon. It must not raise."""
        with self._lock:
            self._jobs.append(job)
            if self._waiting < len(self._jobs) and len(self._threads) < MAX_THREADS:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                self._work.notify()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._jobs and not self._closed:
                    self._waiting += 1
                    self._work.wait()
                    self._waiting -= 1
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                self._busy += 1
            try:
                job()
            finally:
                with self._lock:
                    self._busy -= 1
                    if not self._busy and not self._jobs:
                        self._rest.notify_all()

    def drain(self) -> None:
        """Wait until nothing is left to do."""
        with self._lock:
            while self._busy or self._jobs:
                self._rest.wait()

    def close(self) -> None:
        """Let the threads end."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
        for thread in self._threads:
            thread.join(STOP_S)
