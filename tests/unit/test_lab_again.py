"""A job whose lab falls is begun once more, without what has passed, and says so; what failed is never tried again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.lab.host import again
from tests.lab.host.machine import Job, LabCrashed, LabFailed
from tests.lab.progress import Progress

pytest_plugins = "pytester"
JOB = Job(argv=("true",), timeout_s=700)


def crash(passed: str = "", failed: str = "") -> LabCrashed:
    made = LabCrashed("the lab stands still")
    made.passed, made.failed, made.console = passed, failed, "last words"
    return made


class Labs:
    """One after another, each of which takes 200 s and ends as it is told."""

    def __init__(self, *ends: int | Exception, takes_s: float = 200) -> None:
        self.ends: Iterator[int | Exception] = iter(ends)
        self.takes_s, self.now = takes_s, 1000.0
        self.begun: list[tuple[float, str]] = []
        self.said: list[str] = []

    def boot(self, job: Job, out: IO[bytes], *, timeout_s: float, passed: str) -> int:
        self.begun.append((timeout_s, passed))
        self.now += self.takes_s
        end = next(self.ends)
        if isinstance(end, Exception):
            raise end
        return end

    def run(self, job: Job = JOB) -> int:
        return again.run(job, io.BytesIO(), self.said.append, self.boot, lambda: self.now)


@pytest.mark.parametrize("code", [0, 1])
def test_what_ends_is_not_run_again(code: int) -> None:
    labs = Labs(code)
    assert labs.run() == code
    assert (labs.begun, labs.said) == ([(700.0, "")], [])


def test_it_goes_on_with_what_is_left_of_tests_and_of_time() -> None:
    labs = Labs(crash("a\nb\n"), crash("a\nb\nc\n"), 0)
    assert labs.run() == 0
    assert labs.begun == [(700.0, ""), (500.0, "a\nb\n"), (300.0, "a\nb\nc\n")]
    first, second = labs.said
    assert first == (
        "the lab stands still; its console said:\nlast words\n"
        "begun once more, in a fresh lab: 2 passed before and are not run again"
    )
    assert second.endswith("3 passed before and are not run again")


def test_what_notes_nothing_begins_from_the_beginning() -> None:
    labs = Labs(crash(), 0)
    assert labs.run() == 0
    assert labs.said[0].endswith("begun once more, in a fresh lab: from the beginning")


def test_three_labs_are_enough() -> None:
    labs = Labs(crash(), crash(), crash(), 0, takes_s=1)
    with pytest.raises(LabCrashed, match="stands still"):
        labs.run()
    assert len(labs.begun) == 3


def test_no_lab_is_begun_without_the_time_for_one() -> None:
    labs = Labs(crash(), 0, takes_s=650)
    with pytest.raises(LabCrashed):
        labs.run()
    assert len(labs.begun) == 1


def test_a_test_that_failed_is_not_run_again() -> None:
    labs = Labs(crash("a\n", "b (call)\nassert 1 == 2\n"), 0)
    with pytest.raises(LabFailed, match="tests failed before the lab did:\nb \\(call\\)\nassert 1 == 2") as failure:
        labs.run()
    assert "last words" in str(failure.value)
    assert len(labs.begun) == 1


def test_the_end_of_the_time_is_the_end() -> None:
    labs = Labs(LabFailed("the job did not end within 700 s"), 0)
    with pytest.raises(LabFailed, match="did not end"):
        labs.run()
    assert len(labs.begun) == 1


TESTS = """
import pytest

@pytest.fixture
def falls():
    yield
    raise OSError("left behind")

def test_good(): pass
@pytest.mark.parametrize("what", ["a b", "\\n"])
def test_named(what): pass
def test_bad(): assert 1 == 2
def test_untidy(falls): pass
def test_left_out(): pytest.skip("not here")
"""
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:asyncio", "--timeout", "77")
PASSED = ["test_it.py::test_good", "test_it.py::test_named[a b]", "test_it.py::test_named[\\n]"]


def test_what_passed_is_noted_and_left_out(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(test_it=TESTS)
    pytester.inline_run(*OPTIONS, plugins=[Progress(tmp_path)]).assertoutcome(passed=4, failed=2, skipped=1)
    assert (tmp_path / "passed").read_text().splitlines() == PASSED
    failed = (tmp_path / "failed").read_text()
    assert "test_it.py::test_bad (call)\n" in failed
    assert "assert 1 == 2" in failed
    assert "test_it.py::test_untidy (teardown)\n" in failed
    ran = pytester.inline_run(*OPTIONS, plugins=[Progress(tmp_path)])
    ran.assertoutcome(passed=1, failed=2, skipped=1)
    assert not {report.nodeid for report in ran.getreports("pytest_runtest_logreport")} & set(PASSED)


@pytest.mark.parametrize("named", [(), ("-p", "pytest_timeout")])
def test_what_runs_is_noted_while_it_does(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path))
    if named:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    said = "77 test_it.py::test_it\n"
    pytester.makepyfile(
        test_it=f"import os\ndef test_it():\n    assert open(os.environ['NOTES'] + '/running').read() == {said!r}"
    )
    pytester.inline_run(*named, *OPTIONS, plugins=[Progress(tmp_path)]).assertoutcome(passed=1)
    assert not (tmp_path / "running").exists()


def test_nothing_left_to_run_is_no_failure(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile("def test_good(): pass")
    for _ in range(2):
        assert pytester.inline_run(*OPTIONS, plugins=[Progress(tmp_path)]).ret == pytest.ExitCode.OK
    assert pytester.inline_run(*OPTIONS, "-k", "none").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_worker_leaves_out_and_notes_nothing(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile("def test_good(): pass\ndef test_bad(): assert False\ndef test_better(): pass")
    (tmp_path / "passed").write_text(noted := "test_a_worker_leaves_out_and_notes_nothing.py::test_good\n")
    ran = pytester.inline_run(*OPTIONS, plugins=[Progress(tmp_path, notes=False)])
    ran.assertoutcome(passed=1, failed=1)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir() if file.is_file()] == [("passed", noted)]
