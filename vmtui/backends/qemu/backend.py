"""Virtual machines on QEMU: one process each, under a small parent, found again by their files and /proc."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from vmtui.backends.machines import ANSWER_S, MachineBackend
from vmtui.backends.qemu import state
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import (
    Attachments,
    Desired,
    ExecRequest,
    ExecSession,
    Executes,
    HasConsole,
    HasLogs,
    Killable,
    LogFiles,
    Measurable,
    Pausable,
    Probe,
    Reconnectable,
    Report,
    Runnable,
    Terminal,
)
from vmtui.core.errors import Fault, NotFound, OperationFailed
from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Fact, Port, Problem, Ref, Sample, Status
from vmtui.core.specs import VmSpec
from vmtui.guests.state import Observed


class QemuBackend(MachineBackend):
    """Needs qemu-system-x86; root for TAPs, for images, and to give each VM a user of its own."""

    name = "qemu"
    options_type = QemuOptions
    priority: ClassVar[int] = 10
    control = "qmp"

    def _state(self, folder: Path) -> Observed:
        return state.observe(folder)

    def _faults(self, desired: Desired[VmSpec]) -> Iterator[Fault]:
        from vmtui.backends.qemu import check

        yield from check.faults(desired)

    # What is there

    async def probe(self) -> Probe:
        from vmtui.backends.qemu import accelerator
        from vmtui.guests import dev_kvm

        try:
            host = await accelerator.examine(self.context.paths.cache)
            chosen = accelerator.choose(host, "auto")
        except (Fault, OSError) as error:
            fault = error if isinstance(error, Fault) else OperationFailed(str(error))
            problem = Problem(
                code="no-qemu", message=fault.message, hint=fault.hint or "apt-get install qemu-system-x86"
            )
            return Probe(backend=self.name, kind=self.kind, usable=False, summary=fault.message, problems=(problem,))
        facts = (("qemu", host.version), ("accelerator", chosen.name), ("why", chosen.why))
        slow = chosen.name == accelerator.TCG
        summary = f"QEMU {host.version} with {'TCG, in software' if slow else 'KVM'}"
        problems = (Problem(code="no-kvm", message=chosen.why, hint=dev_kvm.mend()),) if slow else ()
        return Probe(backend=self.name, kind=self.kind, usable=True, summary=summary, problems=problems, facts=facts)

    async def inspect(self, ref: Ref) -> Status:
        from vmtui.backends.qemu import qmp

        status = self._observe(ref)
        if status is None:
            raise NotFound(f"{ref} does not exist")
        if status.phase not in UP:
            return status
        facts = (*status.facts, Fact(name="qmp", value=str(self._socket(ref, "qmp"))))
        try:
            runstate = await qmp.status(self._socket(ref, "qmp"), timeout=ANSWER_S)
        except OperationFailed as fault:
            return await self._silent(ref, msgspec.structs.replace(status, facts=facts), fault)
        phase, problems = status.phase, status.problems
        if runstate in ("paused", "running"):
            phase = Phase.PAUSED if runstate == "paused" else Phase.RUNNING
        else:
            problem = Problem(code="halted", message=f"qemu holds the guest: {runstate}", hint=f"vmtui restart {ref}")
            problems = (*problems, problem)
        return msgspec.structs.replace(status, phase=phase, facts=facts, problems=problems)

    # Making and removing

    async def check(self, desired: Desired[VmSpec], others: Sequence[Desired[Any]]) -> Sequence[Problem]:
        from vmtui.backends.qemu import making

        return await making.problems(self.context, desired, others)

    # Running

    async def _start(self, desired: Desired[VmSpec], folder: Path, attachments: Attachments, report: Report) -> None:
        from vmtui.backends.qemu import starting

        await starting.start(self.context, desired, folder, attachments, report)

    async def _press(self, ref: Ref, *, wake: bool) -> None:
        from vmtui.backends.qemu import qmp

        if wake:
            await qmp.execute(self._socket(ref, "qmp"), "cont", timeout=ANSWER_S)
        await qmp.execute(self._socket(ref, "qmp"), "system_powerdown", timeout=ANSWER_S)

    async def _hold(self, ref: Ref) -> None:
        from vmtui.backends.qemu import qmp

        await qmp.execute(self._socket(ref, "qmp"), "stop")

    async def _release(self, ref: Ref) -> None:
        from vmtui.backends.qemu import qmp

        await qmp.execute(self._socket(ref, "qmp"), "cont")

    async def reconnect(self, ref: Ref, ports: Sequence[Port]) -> None:
        from vmtui.backends.qemu import tap

        _, folder, seen = self._up(ref)
        assert seen.process is not None
        tap.reattach(seen.process.pid, [port.interface for port in ports])
        self._remember(folder, seen, ports)

    # Looking in

    async def console(self, ref: Ref) -> Terminal:
        from vmtui.backends.qemu import console

        self._up(ref)
        return await console.attach(self._socket(ref, "console"))

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        from vmtui.backends.qemu import agent

        wanted = self._command(ref, request)
        return await agent.open_session(
            self.context.runtime_dir(ref), wanted, tty=request.tty, rows=request.rows, columns=request.columns
        )

    async def stats(self, ref: Ref) -> Sample:
        from vmtui.backends.qemu import qmp
        from vmtui.guests import measure

        desired, _, seen = self._up(ref)
        assert seen.process is not None
        interfaces = [port.interface for port in seen.launch.ports] if seen.launch else []
        sample = measure.sample(seen.process.pid, int(desired.spec.memory), interfaces)
        try:
            read, written = await qmp.block_bytes(self._socket(ref, "qmp"))
        except OperationFailed:
            return sample
        return msgspec.structs.replace(sample, block_read_bytes=read, block_write_bytes=written)


_runnable: type[Runnable] = QemuBackend
_killable: type[Killable] = QemuBackend
_pausable: type[Pausable] = QemuBackend
_console: type[HasConsole] = QemuBackend
_logs: type[HasLogs] = QemuBackend
_log_files: type[LogFiles] = QemuBackend
_executes: type[Executes] = QemuBackend
_measurable: type[Measurable] = QemuBackend
_reconnectable: type[Reconnectable] = QemuBackend
