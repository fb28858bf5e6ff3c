"""Notes which tests have passed where the host sees it: a lab that falls is begun once more, without them."""

from __future__ import annotations

from pathlib import Path

import pytest


class Progress:
    """A plug-in of pytest. `folder` gets `passed`, a node id a line, and `failed`, with how.

    What is in `passed` at the start is left out. A test counts when it is taken down too; one that is skipped does not.
    """

    def __init__(self, folder: Path) -> None:
        self._passed, self._failed = folder / "passed", folder / "failed"
        self._before = frozenset(self._passed.read_text().splitlines()) if self._passed.exists() else frozenset()
        self._good: set[str] = set()
        self._left_out = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.nodeid in self._before]
        if left_out:
            self._left_out = len(left_out)
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item.nodeid not in self._before]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._good.discard(report.nodeid)
            _append(self._failed, f"{report.nodeid} ({report.when})\n{report.longreprtext}\n")
        elif report.when == "call" and report.passed:
            self._good.add(report.nodeid)
        elif report.when == "teardown" and report.nodeid in self._good:
            _append(self._passed, f"{report.nodeid}\n")

    def pytest_report_collectionfinish(self) -> str | None:
        return f"{self._left_out} passed in a lab before this one" if self._left_out else None

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Nothing left to run is no failure where all has passed."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._left_out:
            session.exitstatus = pytest.ExitCode.OK


def _append(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)
