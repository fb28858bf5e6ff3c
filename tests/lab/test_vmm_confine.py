"""The walls on another kernel, with the hardware that the machine runs on: real KVM, vhost-net."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support import confined, confined_backends


def test_everything_is_refused() -> None:
    said = confined.enquire("everything")
    assert said["walls"]["missing"] == []
    assert "worked" not in said.values()


def test_guests_and_network_cards_run_behind_them() -> None:
    assert confined.enquire("guest")[2:] == ["hlt", [0x42, 7], "hlt", [0x42, 7], "hlt"]
    assert confined.enquire("vhost") == "worked"


def test_back_ends_serve_behind_them() -> None:
    for job in ("storage", "virtiofsd"):
        with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as folder:
            Path(folder).chmod(0o755)
            said = confined_backends.enquire(job, Path(folder))
            assert said["missing"] == []
            assert said["spoken"] in (True, [True, True])
