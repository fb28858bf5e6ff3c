"""Notes which tests have passed where the host sees it: a lab that falls is begun once more, without them."""

from __future__ import annotations

from pathlib import Path

import pytest

TIMEOUT_PLUGINS = ("timeout", "pytest_timeout")  # found by itself, and named with -p


class Progress:
    """A plug-in of pytest. `folder` gets `passed`, a node id a line, `failed`, with how, and while tests run `running`:
    the seconds after which pytest-timeout ends a test, and the last that began.

    What is in `passed` at the start is left out. A test counts when it is taken down too; one that is skipped does not.
    With workers each of them leaves out, and the one that all report to `notes`.
    """

    def __init__(self, folder: Path, *, notes: bool = True) -> None:
        self._notes = notes
        self._passed, self._failed, self._running = folder / "passed", folder / "failed", folder / "running"
        self._timeout_s = 0.0
        self._before = frozenset(self._passed.read_text().splitlines()) if self._passed.exists() else frozenset()
        self._good: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.nodeid in self._before]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item.nodeid not in self._before]

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        config = session.config
        if any(config.pluginmanager.has_plugin(name) for name in TIMEOUT_PLUGINS):
            self._timeout_s = float(config.getoption("timeout") or config.getini("timeout") or 0)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self._notes and self._timeout_s:
            self._running.write_text(f"{self._timeout_s:.0f} {nodeid}\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not self._notes:
            return
        if report.failed:
            self._good.discard(report.nodeid)
            _append(self._failed, f"{report.nodeid} ({report.when})\n{report.longreprtext}\n")
        elif report.when == "call" and report.passed:
            self._good.add(report.nodeid)
        elif report.when == "teardown" and report.nodeid in self._good:
            _append(self._passed, f"{report.nodeid}\n")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Nothing left to run is no failure where all has passed."""
        if self._notes:
            self._running.unlink(missing_ok=True)
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._before:
            session.exitstatus = pytest.ExitCode.OK


def _append(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)
