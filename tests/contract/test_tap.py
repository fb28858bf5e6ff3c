"""The contract, held by bridges with TAP and veth ports. Each network has a subnet of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.contract import providers
from tests.contract.subject import Lab, Subject
from tests.support import claims
from vmtui.backends.tap.backend import TapBackend
from vmtui.core.backend import Desired
from vmtui.core.specs import NetworkSpec, Spec


class TapSubject(Subject):
    backend = TapBackend
    kill_points: ClassVar[int] = 12

    async def spec(self, lab: Lab) -> Spec:
        return NetworkSpec(subnet=f"{claims.subnet()}.0/24")

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        return lab.want(lab.ref("impossible"), NetworkSpec(subnet="10.129.7.0/24", gateway="192.0.2.1"))


@pytest.mark.real
class TestTap(providers.ProvidesPortsContract):
    subject = TapSubject()
