"""The contract of disks that begin as an image from elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.contract import providers
from tests.contract.subject import Lab, Subject
from vmtui.backends.qcow2.backend import Qcow2Backend
from vmtui.core.backend import Desired
from vmtui.core.specs import DiskSpec, Spec
from vmtui.core.units import Size


class ImportedSubject(Subject):
    backend = Qcow2Backend

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        whole = await self.spec(lab)
        assert isinstance(whole, DiskSpec)
        return lab.want(lab.ref("impossible"), replace(whole, size=Size(64 << 10)))  # smaller than its source

    async def spec(self, lab: Lab) -> Spec:
        source = lab.folder / "image.raw"
        source.write_bytes(b"vmtui" * 1000 + bytes(1 << 20))
        return DiskSpec(source=str(source), source_format="raw", size=Size(4 << 20))


@pytest.mark.real
class TestQcow2Imported(providers.DiskImageContract, providers.ResizableContract):
    subject = ImportedSubject()
