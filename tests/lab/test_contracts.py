"""Contracts of backends, held on a host that this machine is not: with cgroup v2 and a KVM that works.

Emulated, each process costs ten times as much: so of each contract those tests that share one workload, and the few
others that ask most of the host. All of them run elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec.structs import replace

from tests.contract import test_contract_oci, test_kvm, test_qemu, test_tap
from tests.contract.subject import Lab
from tests.integration.conftest import busybox, layer_cache, yard
from tests.integration.test_oci_confinement import (
    test_memory_is_limited,
    test_processes_are_limited,
    test_the_processor_is_limited,
)
from vmtui.backends.oci.options import OciOptions
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Probe
from vmtui.core.specs import Spec
from vmtui.core.units import Size

__all__ = [
    "busybox",
    "layer_cache",
    "test_memory_is_limited",
    "test_processes_are_limited",
    "test_the_processor_is_limited",
    "yard",
]

PROBE, LIFE = "test_probe_says_what_and_why", "test_from_start_to_end"


class Here:
    """`kept` are the tests that run beside those of the shared workload: conftest.py sees to it."""

    kept: ClassVar[frozenset[str]] = frozenset({PROBE, LIFE})
    shares: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls) -> Path:
        return Path(os.environ["XDG_CACHE_HOME"], "vmtui")


class CrunSubject(test_contract_oci.OciSubject):
    def options(self) -> OciOptions:
        return OciOptions(runtime="crun", userns="private")


class TestCrun(Here, test_contract_oci.TestOci):
    subject = CrunSubject()
    kept = frozenset({PROBE, LIFE, "test_it_ends_by_itself", "test_paused_it_can_be_stopped"})


class RuncSubject(test_contract_oci.OciSubject):
    def options(self) -> OciOptions:
        return OciOptions(runtime="runc", userns="private")


class TestRunc(Here, test_contract_oci.TestOci):
    subject = RuncSubject()
    kept = frozenset({"test_paused_it_can_be_stopped"})
    shares = False


class TestTap(Here, test_tap.TestTap):
    kept = frozenset({PROBE, "test_a_port_is_the_same_each_time", "test_ports_go_with_their_network"})


class QemuSubject(test_qemu.QemuSubject):
    boot_s = 60.0

    def options(self) -> QemuOptions:
        return QemuOptions(accel="kvm")

    async def spec(self, lab: Lab) -> Spec:
        # On an emulated processor with all its extensions the kernel itself needs so much that 128 MiB are too few.
        return replace(test_qemu.vm("sh", "-c", test_qemu.SCRIPT), memory=Size(256 << 20))


class TestQemu(Here, test_qemu.TestQemu):
    subject = QemuSubject()
    kept = frozenset({PROBE})

    def test_it_takes_kvm(self, probed: Probe) -> None:
        assert probed.usable
        assert "kvm" in f"{probed.summary} {probed.facts}".lower()


class KvmSubject(test_kvm.KvmSubject):
    boot_s = 60.0


class TestKvm(Here, test_kvm.TestKvm):
    subject = KvmSubject()
    kept = frozenset({PROBE, LIFE, "test_it_ends_by_itself"})

    def test_it_runs_here(self, probed: Probe) -> None:
        assert probed.usable, probed
