"""The contract of the simulated backends: what they keep, the tests of all that stands on them can rely on."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

from tests.contract import providers, workloads
from tests.contract.subject import GREETING, LATER, Lab, Subject
from tests.support.fakes import FAKES
from vmtui.backends.fake.options import FakeOptions
from vmtui.core.backend import Desired
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Kind
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, SandboxSpec, Spec, VmSpec
from vmtui.core.units import Duration, Size

SPECS: dict[Kind, Spec] = {
    Kind.NETWORK: NetworkSpec(),
    Kind.DISK: DiskSpec(size=Size(1 << 20)),
    Kind.VM: VmSpec(kernel="/boot/vmlinuz"),
    Kind.CONTAINER: ContainerSpec(image="oci:/image"),
    Kind.SANDBOX: SandboxSpec(module="/module.wasm"),
}


class FakeSubject(Subject):
    boot_s: ClassVar[float] = 1.0

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.backend = FAKES[kind]

    def options(self) -> Struct | None:
        return FakeOptions(log=(GREETING,), ready_line=LATER, ready_after=Duration(1))

    async def spec(self, lab: Lab) -> Spec:
        return SPECS[self.kind]

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        return lab.want(lab.ref("impossible"), SPECS[self.kind], FakeOptions(fail_on=(Action.CREATE,)))

    async def ending(self, lab: Lab) -> Desired[Any]:
        return lab.want(lab.ref("ending"), SPECS[self.kind], FakeOptions(exit_after=Duration(0.6), exit_code=3))


class TestFakeNetwork(providers.ProvidesPortsContract):
    subject = FakeSubject(Kind.NETWORK)


class TestFakeDisk(providers.DiskImageContract, providers.ResizableContract):
    subject = FakeSubject(Kind.DISK)


class TestFakeVm(
    workloads.RunnableContract,
    workloads.KillableContract,
    workloads.PausableContract,
    workloads.HasLogsContract,
    workloads.ExecutesContract,
    workloads.HasConsoleContract,
    workloads.MeasurableContract,
    workloads.ReconnectableContract,
):
    subject = FakeSubject(Kind.VM)


class TestFakeContainer(
    workloads.RunnableContract,
    workloads.KillableContract,
    workloads.PausableContract,
    workloads.HasLogsContract,
    workloads.ExecutesContract,
    workloads.HasConsoleContract,
    workloads.MeasurableContract,
    workloads.ReconnectableContract,
):
    subject = FakeSubject(Kind.CONTAINER)


class TestFakeSandbox(
    workloads.RunnableContract,
    workloads.KillableContract,
    workloads.PausableContract,
    workloads.HasLogsContract,
    workloads.MeasurableContract,
):
    subject = FakeSubject(Kind.SANDBOX)
