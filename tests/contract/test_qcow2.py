"""The contract of disks, with real images."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract import providers
from tests.contract.subject import Lab, Subject
from vmtui.backends.qcow2.backend import Qcow2Backend
from vmtui.core.backend import Desired
from vmtui.core.specs import DiskSpec, Spec
from vmtui.core.units import Size


class Qcow2Subject(Subject):
    backend = Qcow2Backend

    async def spec(self, lab: Lab) -> Spec:
        return DiskSpec(size=Size(8 << 20))

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        garbage = lab.folder / "garbage.qcow2"
        garbage.write_bytes(b"QFI\xfb" + bytes(4096))
        return lab.want(lab.ref("impossible"), DiskSpec(source=str(garbage), source_format="qcow2"))


@pytest.mark.real
class TestQcow2(providers.DiskImageContract, providers.ResizableContract):
    subject = Qcow2Subject()
