"""Back-ends that are started confined, end in every way, and are there again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.supervised_backends import enquire
from tests.support.vhost_backends import needs_storage, needs_virtiofsd

pytestmark = pytest.mark.real


@needs_storage
def test_a_storage_daemon_is_always_there(tmp_path: Path) -> None:
    said = enquire("storage", tmp_path)
    assert said.pop("missing") in ([], ["landlock: not in this kernel, or not enabled"])
    assert said == {
        "first": True,
        "alone": True,
        "clean": [False, True],
        "again": True,
        "ends": ["blk0: killed by SIGKILL", *["blk0: exit code 0"] * 2, "blk0: killed by SIGKILL"],
        "gone": True,
        "at once": True,
    }


@needs_storage
def test_a_disk_grows(tmp_path: Path) -> None:
    said = enquire("resize", tmp_path)
    assert said.pop("refused")
    assert said == {"capacity": 16 << 20, "over": "blk0 does not run", "size": 16 << 20}


@needs_storage
def test_one_that_cannot_start_is_tried_less_and_less_often(tmp_path: Path) -> None:
    said = enquire("broken", tmp_path)
    assert said["ends"] == ["blk0: exit code 1"] * 4
    assert said["delay_s"] == pytest.approx(1.6)
    assert "not in qcow2 format" in said["log"]


@needs_virtiofsd
def test_a_virtiofsd_is_always_there(tmp_path: Path) -> None:
    said = enquire("directory", tmp_path)
    assert said == {"first": True, "missing": [], "again": True, "ends": 1}
