"""Fixtures that every tier shares."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.cli import Cli
from vmtui.core.backend import Context
from vmtui.host.paths import Paths

pytest.register_assert_rewrite("tests.contract")  # what the suites assert is told in full, as of a test

# Of the properties, the same examples each time, so that no change is refused for what another one's did not come
# upon; `make thorough` looks for new ones. How long one takes says nothing: the machine has other work.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("random"), derandomize=True)
settings.load_profile("same")

# Of these folders each test goes to whichever worker is free, but for these files: their tests share a thing that takes
# long to make.
APART = ("tests/integration/",)
TOGETHER = frozenset(
    f"tests/integration/test_{name}.py"
    for name in (
        "debimage",
        "demo",
        "image_registry",
        "qcow2_disk",
        "qcow2_images",
        "qemu_guest",
        "ssh_login",
        "unpack",
        "web",
        "web_page",
    )
)
# What `make thorough` runs, and `make test` has no time for: others try the same, with real clients, after all losses
# at once, or by fewer examples.
THOROUGH = tuple(
    f"tests/{name}"
    for name in (
        "integration/ssh_clients/test_viewer_panel.py::test_every_letter_of_the_other_views",
        "integration/ssh_sessions/test_ends.py",
        "integration/ssh_sessions/test_verbs.py",
        "integration/ssh_sessions/test_watching.py",
        "integration/test_bad_host.py::test_a_damaged_layer_store_is_filled_again",
        "integration/test_bad_host.py::test_a_guest_that_ends_at_once[no ",
        "integration/test_cli_recordings.py",
        "integration/test_crash_fake.py::test_killed_at_any_point_the_next_run_finishes_it[down]",
        "integration/test_crash_fake.py::test_killed_at_any_point_the_next_run_finishes_it[rollback]",
        "integration/test_crash_real.py::test_killed_anywhere_in_what_concerns_a_vm",
        "integration/test_hostile_panel.py",
        "integration/test_images.py::test_random_layers_merge_as_umocis",
        "integration/test_lab_machine.py",
        "integration/test_losses.py::test_a_second_run_changes_nothing",
        "integration/test_losses.py::test_after_a_reboot",
        "integration/test_losses.py::test_all_of_a_profile_is_adopted_together",
        "integration/test_losses.py::test_down_after_each_loss",
        "integration/test_losses.py::test_one_by_one_without_database",
        "integration/test_losses.py::test_taken_down_by_name_without_database_and_file",
        "integration/test_losses.py::test_what_the_database_forgot_is_adopted_as_it_is",
        "integration/test_losses.py::test_what_was_lost_is_made_good[",
        "integration/test_panel_real.py",
        "integration/test_panel_tmux.py::test_all_seven_screens_at_every_size",
        "integration/test_qcow2_images.py::test_a_bomb_does_not_go_off",
        "integration/test_qemu_life.py::test_its_parent_",
        "integration/test_ssh_login.py",
        "integration/test_tap_kills.py",
        "integration/test_web.py::test_a_viewer_changes_nothing_by_any_command",
        "integration/test_web_page.py",
        "tui/test_rights.py::test_no_command_changes_anything_for_a_viewer",
        "tui/test_rights.py::test_no_key_of_any_view_changes_anything_for_a_viewer[profile]",
        "tui/test_rights.py::test_no_key_of_the_logs_changes_anything_for_a_viewer",
    )
)
KEPT = "[all of these]"
# Many examples of one sort: of each test, `make test` runs every fourth.
SAMPLED = (
    "tests/integration/test_bad_host.py",
    "tests/integration/test_bad_input.py",
    "tests/integration/test_cli_plain.py",
    "tests/integration/test_cli_stdin.py",
    "tests/integration/test_oci_crash.py",
    "tests/integration/test_qcow2_images.py",
    "tests/integration/test_sandbox.py",
    "tests/integration/test_sandbox_life.py",
    "tests/tui/test_rights.py::test_no_key_of_any_view",
)
ONE_OF = 4
# Each of these files has a console of its own.
SERVED = ("tests/integration/ssh_clients/", "tests/integration/ssh_sessions/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        if item.nodeid.startswith(THOROUGH) and not item.nodeid.endswith(KEPT):
            item.add_marker(pytest.mark.thorough)
        elif item.nodeid.startswith(SAMPLED):
            test = item.nodeid.partition("[")[0]
            if seen[test] % ONE_OF:
                item.add_marker(pytest.mark.thorough)
            seen[test] += 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half of the time is spent waiting for guests, terminals and clocks."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        """In the order of the files, so that what takes long does not come last."""

        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if file.startswith(APART) and file not in TOGETHER and not file.startswith(SERVED) else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.fixture
def paths() -> Iterator[Paths]:
    """A workspace of its own. Not tmp_path: unix socket paths must stay below 108 bytes."""
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    made = Paths(root / "s" / "vmtui", root / "c" / "vmtui", root / "r" / "vmtui")
    made.make()
    yield made
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def context(paths: Paths) -> Context:
    return Context(paths=paths, workspace=secrets.token_hex(4))


@pytest.fixture
def cli(paths: Paths, tmp_path: Path) -> Cli:
    """`vmtui` as a program, in a workspace of its own."""
    return Cli(paths, tmp_path)
