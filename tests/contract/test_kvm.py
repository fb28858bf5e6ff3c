"""The bundled VMM against the contract of every backend, with the workloads of backend `qemu`: one word is another."""

from __future__ import annotations

from tests.contract import test_qemu
from vmtui.backends.kvm.backend import KvmBackend


class KvmSubject(test_qemu.QemuSubject):
    backend = KvmBackend


class TestKvm(test_qemu.TestQemu):
    subject = KvmSubject()
