"""QEMU against the contract of every backend, with Debian's cloud kernel and a busybox image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contract import workloads
from tests.contract.subject import GREETING, LATER, Lab, Subject
from tests.support import downloads
from vmtui.backends.qemu.backend import QemuBackend
from vmtui.core.backend import Backend, Desired
from vmtui.core.specs import NetworkMode, Spec, VmSpec
from vmtui.core.units import Size

# A shell on the console, and one outside of it that ends when it is asked to: an interactive shell ignores SIGTERM.
SCRIPT = f"trap 'exit 0' TERM; echo {GREETING}; (sleep 1; echo {LATER}) & sh -i <&1 & while :; do wait; done"


def vm(*command: str, **more: Any) -> VmSpec:
    return VmSpec(
        kernel="deb:linux-image-cloud-amd64",
        rootfs="deb:busybox-static",
        memory=Size(128 << 20),
        command=command,
        network_mode=NetworkMode.NONE,
        **more,
    )


class QemuSubject(Subject):
    backend: type[Backend[Any]] = QemuBackend
    boot_s: ClassVar[float] = 20.0
    grace_s: ClassVar[float] = 60.0

    async def spec(self, lab: Lab) -> Spec:
        return vm("sh", "-c", SCRIPT)

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        lab.folder.joinpath("vmlinuz").write_bytes(b"not a kernel" * 100)
        return lab.want(lab.ref("impossible"), VmSpec(kernel=str(lab.folder / "vmlinuz")))

    async def ending(self, lab: Lab) -> Desired[Any]:
        return lab.want(lab.ref("ending"), vm("sh", "-c", "exit 3"))


@pytest.mark.real
class TestQemu(
    workloads.RunnableContract,
    workloads.KillableContract,
    workloads.PausableContract,
    workloads.HasConsoleContract,
    workloads.HasLogsContract,
    workloads.LogFilesContract,
    workloads.ExecutesContract,
    workloads.MeasurableContract,
    workloads.ReconnectableContract,
):
    subject = QemuSubject()

    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return downloads.cache(tmp_path_factory)
