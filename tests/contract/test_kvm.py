"""The bundled VMM against the contract of every backend: the workloads of backend `qemu`, and what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contract import workloads
from tests.contract.subject import Lab, Subject
from tests.contract.test_qemu import SCRIPT, vm
from tests.support import downloads
from vmtui.backends.kvm.backend import KvmBackend
from vmtui.core.backend import Desired
from vmtui.core.specs import Spec, VmSpec


class KvmSubject(Subject):
    backend = KvmBackend
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
class TestKvm(
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
    subject = KvmSubject()

    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return downloads.cache(tmp_path_factory)
