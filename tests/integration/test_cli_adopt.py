"""`vmtui --profile FILE --adopt` as a program, over simulated resources."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Cli

DEV = """
[container.web]
backend = "fake"
image = "docker://web"  # pinned soon
restart = "always"

# of the team
[network.lab]
backend = "fake"
"""
CHANGED = DEV.replace('"always"', '"no"')


@pytest.fixture
def dev(cli: Cli) -> str:
    path = cli.profile(DEV)
    cli.ok("--profile", path)
    return path


def test_the_file_becomes_what_was_applied(cli: Cli, dev: str) -> None:
    cli.profile(CHANGED)
    shown = cli.ok("--profile", dev, "--adopt", "--plan", code=2)
    assert '-restart = "no"\n+restart = "always"\n' in shown
    assert Path(dev).read_text() == CHANGED
    done = cli.run("--profile", dev, "--adopt")
    assert (done.returncode, done.stdout) == (0, shown)
    assert "written" in done.stderr
    assert Path(dev).read_text() == DEV
    assert cli.ok("--profile", dev, "--adopt") == ""
    assert cli.ok("--profile", dev, "--adopt", "--plan") == ""
    cli.ok("--profile", dev, "--plan")


def test_what_is_not_adopted_is_told(cli: Cli, dev: str) -> None:
    cli.ok("stop", "web")
    done = cli.run("--profile", dev, "--adopt")
    assert (done.returncode, done.stdout) == (0, "")
    assert "note: container/web: it is stopped: this cannot be adopted" in done.stderr
    assert f"hint: vmtui --profile {dev}" in done.stderr


def test_records(cli: Cli, dev: str) -> None:
    cli.profile(CHANGED + '\n[vm.new]\nbackend = "fake"\nkernel = "/k"\n')
    records = cli.records("--profile", dev, "--adopt")
    assert [record["event"] for record in records] == ["version", "plan", "diagnostic", "summary"]
    assert records[2]["code"] == "adopted"
    assert "-[vm.new]" in records[2]["details"]
    assert (records[3]["result"], records[3]["changes"]) == ("adopted", 1)
    assert Path(dev).read_text() == DEV


@pytest.mark.parametrize("other", [["--check"], ["--down"], ["--foreground"], ["--recreate"], ["--purge"]])
def test_what_it_does_not_go_with(cli: Cli, dev: str, other: list[str]) -> None:
    cli.refused(64, "--profile", dev, "--adopt", *other)


def test_faults(cli: Cli, dev: str) -> None:
    cli.refused(64, "--adopt")
    cli.refused(65, "--profile", "none.toml", "--adopt")
    cli.profile("[vm.x]\ncpus = 0\n")
    cli.refused(65, "--profile", dev, "--adopt")
    cli.profile("vm = { a = { backend = 'fake', kernel = '/k' } }\n")
    assert cli.ok("--profile", dev, "--adopt") != ""
