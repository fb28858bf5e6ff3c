"""The same guest, with the real storage daemon at its rings: what it does to that is survived by the VM.

The daemon is QEMU's, and gives up, or even crashes, over rings that QEMU would mark as broken.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.devices import SUBJECTS, Subject
from tests.fuzz.guest import Guest
from tests.fuzz.test_devices import OPERATIONS, SEED
from tests.support.dev_kvm import needs_kvm
from tests.support.vhost_backends import StorageDaemon, needs_storage
from vmtui.vmm.devices.vhost_user import device
from vmtui.vmm.devices.vhost_user.blk import VhostUserBlk
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.device import VirtioDevice

WAIT_S = 60.0

pytestmark = [pytest.mark.real, needs_kvm, needs_storage, pytest.mark.timeout(180 + OPERATIONS / 50)]


class Disk:
    """A daemon that is there again whenever it was lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.back = 0
        self.device: VhostUserBlk | None = None
        self.daemon: StorageDaemon | None = None

    def make(self, loop: Loop, folder: Path) -> VirtioDevice:
        path = folder / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], check=True, timeout=30)
        self.daemon = StorageDaemon(folder, path, "qcow2", queues=2)
        self.device = VhostUserBlk(
            "blk0", loop, self.daemon.connect(), durable=False, lost=self._was_lost, back=self._is_back
        )
        return self.device

    def _was_lost(self, reason: str) -> None:
        assert self.daemon is not None
        assert self.device is not None
        self.lost.append(reason)
        self.daemon.end(signal.SIGKILL)
        self.device.reconnected(self.daemon.connect())

    def _is_back(self) -> None:
        self.back += 1


def test_a_storage_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "STOP_S", 0.1)
    disk = Disk()
    guest = Guest(Subject(disk.make, SUBJECTS["blk"].request), tmp_path, Random(SEED))
    try:
        guest.bring_up()
        for _ in range(OPERATIONS // 10):
            guest.act()
        assert disk.device is not None
        deadline = time.monotonic() + WAIT_S
        while not disk.device.is_connected:
            assert time.monotonic() < deadline
            guest.loop.turn(0.1)
        assert len(disk.lost) - 1 <= disk.back <= len(disk.lost)
    finally:
        guest.close()
        if disk.daemon is not None:
            disk.daemon.end(signal.SIGKILL)
