"""The contract, held by containers."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.contract import workloads
from tests.contract.subject import GREETING, LATER, Lab, Subject
from tests.support.containers import busybox_image
from vmtui.backends.oci.backend import OciBackend
from vmtui.core.backend import Desired
from vmtui.core.specs import ContainerSpec, Spec
from vmtui.core.units import Mount

RUNS = f"echo {GREETING}; sleep 1; echo {LATER}; exec sh"


class OciSubject(Subject):
    backend = OciBackend
    kill_points: ClassVar[int] = 12

    async def spec(self, lab: Lab) -> Spec:
        return self._container(lab, RUNS, tty=True, volumes=(Mount("kept", "/kept"),))

    async def ending(self, lab: Lab) -> Desired[Any]:
        return lab.want(lab.ref("ending"), self._container(lab, "exit 3"))

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        missing = Mount(str(lab.folder / "missing"), "/data")
        return lab.want(lab.ref("impossible"), self._container(lab, "true", volumes=(missing,)))

    def _container(self, lab: Lab, script: str, **more: Any) -> ContainerSpec:
        folder = lab.folder / "image"
        image = f"oci:{folder}" if folder.exists() else busybox_image(folder)
        return ContainerSpec(image=image, command=("/bin/sh", "-c", script), **more)


@pytest.mark.real
class TestOci(
    workloads.RunnableContract,
    workloads.KillableContract,
    workloads.PausableContract,
    workloads.HasLogsContract,
    workloads.LogFilesContract,
    workloads.ExecutesContract,
    workloads.HasConsoleContract,
    workloads.MeasurableContract,
    workloads.ReconnectableContract,
):
    subject = OciSubject()
