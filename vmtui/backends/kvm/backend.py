"""Virtual machines on the bundled VMM: a monitor and a confined machine each, found again by their files and /proc."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from vmtui.backends.kvm import state
from vmtui.backends.kvm.options import KvmOptions
from vmtui.backends.machines import ANSWER_S, MachineBackend
from vmtui.core.backend import (
    Attachments,
    CountsExits,
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

PLUG_S = 2.0
POLL_S = 0.02


class KvmBackend(MachineBackend):
    """Needs a /dev/kvm that runs guests; root for TAPs, for images, and to give each VM a user of its own."""

    name = "kvm"
    options_type = KvmOptions
    priority: ClassVar[int] = 20
    control = "control"

    def _state(self, folder: Path) -> Observed:
        return state.observe(folder)

    def _faults(self, desired: Desired[VmSpec]) -> Iterator[Fault]:
        from vmtui.backends.kvm import check

        yield from check.faults(desired)

    def unsuitable(self, spec: VmSpec) -> str | None:
        from vmtui.backends.kvm import check

        return check.unsuitable(spec)

    # What is there

    async def probe(self) -> Probe:
        from vmtui.backends.kvm import proof
        from vmtui.guests import dev_kvm

        host = await proof.examine(self.context.paths.cache)
        if host.why:
            problem = Problem(code="no-kvm", message=f"KVM boots no guest here: {host.why}", hint=dev_kvm.mend())
            return Probe(backend=self.name, kind=self.kind, usable=False, summary=problem.message, problems=(problem,))
        facts = (("vmm", host.version), ("why", proof.PROVED))
        summary = f"KVM with the bundled VMM: {proof.PROVED}"
        return Probe(backend=self.name, kind=self.kind, usable=True, summary=summary, facts=facts)

    async def inspect(self, ref: Ref) -> Status:
        from vmtui.backends.kvm import control

        status = self._observe(ref)
        if status is None:
            raise NotFound(f"{ref} does not exist")
        if status.phase not in UP:
            return status
        try:
            info = await control.call(self._socket(ref, self.control), "info", timeout=ANSWER_S)
        except OperationFailed as fault:
            return await self._silent(ref, status, fault)
        phase = Phase.PAUSED if info.get("state") == "paused" else Phase.RUNNING
        facts, problems = _told(ref, info, str(self._socket(ref, self.control)))
        return msgspec.structs.replace(
            status, phase=phase, facts=(*status.facts, *facts), problems=(*status.problems, *problems)
        )

    # Making and removing

    async def check(self, desired: Desired[VmSpec], others: Sequence[Desired[Any]]) -> Sequence[Problem]:
        from vmtui.backends.kvm import check

        return await check.problems(self.context, desired, others)

    # Running

    async def _start(self, desired: Desired[VmSpec], folder: Path, attachments: Attachments, report: Report) -> None:
        from vmtui.backends.kvm import starting

        await starting.start(self.context, desired, folder, attachments, report)

    async def _press(self, ref: Ref, *, wake: bool) -> None:
        from vmtui.backends.kvm import control

        if wake:
            await control.call(self._socket(ref, self.control), "resume", timeout=ANSWER_S)
        await control.call(self._socket(ref, self.control), "power_button", timeout=ANSWER_S)

    async def _hold(self, ref: Ref) -> None:
        from vmtui.backends.kvm import control

        await control.call(self._socket(ref, self.control), "pause")

    async def _release(self, ref: Ref) -> None:
        from vmtui.backends.kvm import control

        await control.call(self._socket(ref, self.control), "resume")

    async def reconnect(self, ref: Ref, ports: Sequence[Port]) -> None:
        from vmtui.backends.kvm import control

        _, folder, seen = self._up(ref)
        for index, port in enumerate(ports):
            await control.call(self._socket(ref, self.control), "net_attach", index=index)
            await _plugged(port.interface)
        self._remember(folder, seen, ports)

    # Looking in

    async def console(self, ref: Ref) -> Terminal:
        from vmtui.backends.kvm import control

        self._up(ref)
        return await control.attach(self._socket(ref, self.control))

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        from vmtui.guests import vsock_agent

        wanted = self._command(ref, request)
        sockets = self.context.runtime_dir(ref)
        return await vsock_agent.open_session(
            sockets, wanted, tty=request.tty, rows=request.rows, columns=request.columns
        )

    async def exits(self, ref: Ref) -> Sequence[tuple[str, int]]:
        from vmtui.backends.kvm import control

        self._up(ref)
        metrics = await control.call(self._socket(ref, self.control), "metrics", timeout=ANSWER_S)
        return tuple((str(name), int(times)) for name, times in metrics["exits"].items())

    async def stats(self, ref: Ref) -> Sample:
        from vmtui.backends.kvm import control
        from vmtui.guests import measure

        desired, _, seen = self._up(ref)
        assert seen.process is not None
        interfaces = [port.interface for port in seen.launch.ports] if seen.launch else []
        sample = measure.sample(seen.process.pid, int(desired.spec.memory), interfaces)
        try:
            metrics = await control.call(self._socket(ref, self.control), "metrics", timeout=ANSWER_S)
        except OperationFailed:
            return sample
        devices = [counters for name, counters in metrics["devices"].items() if name.startswith("blk")]
        if not devices or not all("read_bytes" in counters for counters in devices):
            return sample  # a back-end carries them, and counts for itself
        read, written = (sum(counters[key] for counters in devices) for key in ("read_bytes", "write_bytes"))
        return msgspec.structs.replace(sample, block_read_bytes=read, block_write_bytes=written)


def _told(ref: Ref, info: dict[str, Any], socket: str) -> tuple[list[Fact], list[Problem]]:
    """What the VMM says of itself, as facts and problems."""
    carried = info.get("carried_by", {})
    facts = [Fact(name=name, value=str(by)) for name, by in sorted(carried.items())]
    if isinstance(exits := info.get("exits_at_boot"), int):
        facts.append(Fact(name="boot exits", value=str(exits)))
    if missing := info.get("walls_missing", []):
        facts.append(Fact(name="walls missing", value=", ".join(map(str, missing))))
    facts.append(Fact(name="control", value=socket))
    troubles = [
        Problem(
            code="backend-lost",
            message=f"{name} has lost its back-end, which is being started again: {reason}",
            hint=f"vmtui inspect {ref}",
        )
        for name, reason in info.get("lost", {}).items()
    ]
    stuck = [("needs-reset", f"{name} stands still: {why}") for name, why in info.get("needs_reset", {}).items()]
    stuck += [("vmm-fault", f"the VMM itself is at fault: {fault}") for fault in info.get("faults", [])]
    troubles += [Problem(code=code, message=message, hint=f"vmtui restart {ref}") for code, message in stuck]
    return facts, troubles


async def _plugged(interface: str) -> None:
    """Wait until somebody has the TAP open: the VMM opens it in its own time. Raises OperationFailed."""
    carrier = Path(f"/sys/class/net/{interface}/carrier")
    deadline = time.monotonic() + PLUG_S
    try:
        while carrier.read_text().strip() != "1":
            if time.monotonic() > deadline:
                raise OperationFailed(f"the VMM did not attach to {interface}", hint="restart the VM")
            await asyncio.sleep(POLL_S)
    except OSError:
        return  # it is not up, or gone: then there is no carrier to wait for


_runnable: type[Runnable] = KvmBackend
_killable: type[Killable] = KvmBackend
_pausable: type[Pausable] = KvmBackend
_console: type[HasConsole] = KvmBackend
_logs: type[HasLogs] = KvmBackend
_log_files: type[LogFiles] = KvmBackend
_executes: type[Executes] = KvmBackend
_measurable: type[Measurable] = KvmBackend
_reconnectable: type[Reconnectable] = KvmBackend
_counts_exits: type[CountsExits] = KvmBackend
