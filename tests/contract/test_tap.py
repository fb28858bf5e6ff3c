"""The contract of networks, with real bridges, rules and name servers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract import providers
from tests.contract.subject import Lab, Subject
from vmtui.backends.tap.backend import TapBackend
from vmtui.core.backend import Desired
from vmtui.core.specs import NetworkSpec, Spec


class TapSubject(Subject):
    backend = TapBackend

    async def spec(self, lab: Lab) -> Spec:
        return NetworkSpec()

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        return lab.want(lab.ref("impossible"), NetworkSpec(subnet="10.89.0.1/24"))


@pytest.mark.real
class TestTap(providers.ProvidesPortsContract):
    subject = TapSubject()
