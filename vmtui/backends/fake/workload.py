"""What simulated workloads share: start, stop, kill, pause, logs and measurements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from vmtui.backends.fake import simulation
from vmtui.backends.fake.base import FakeBackend
from vmtui.backends.fake.script import Script
from vmtui.backends.fake.shell import Console, Session
from vmtui.backends.fake.world import Clock, Entry
from vmtui.core.backend import Attachments, Context, ExecRequest, ExecSession, LogLine, Report, Terminal
from vmtui.core.lifecycle import UP, Action, Phase
from vmtui.core.resource import Address, Exit, Port, Ref, Sample, Status
from vmtui.core.specs import Workload

W = TypeVar("W", bound=Workload)
KILLED = 137  # 128 + SIGKILL, as a shell shows it
LOOK_EVERY_S = 0.05  # for new log lines, while they are followed
DEFAULT_MEMORY_BYTES = 256 << 20  # of a workload without a limit


class FakeWorkload(FakeBackend[W]):
    def __init__(self, context: Context, *, script: Script | None = None, clock: Clock | None = None) -> None:
        super().__init__(context, script=script, clock=clock)
        self._sessions: dict[Ref, list[Session]] = {}

    async def start(self, ref: Ref, attachments: Attachments, report: Report) -> None:
        if self.world.up(ref):
            self.script.take(Action.START, ref, None)
            return
        entry, effect = self._permit(Action.START, ref)
        await self._work(effect, entry.behaviour.start_time, report, "starting")
        self.world.put(entry.started(self.clock.now(), attachments))
        self._aftermath(effect, ref)

    async def stop(self, ref: Ref, *, grace_s: float) -> None:
        entry = self.world.get(ref)
        effect = self.script.take(Action.STOP, ref, entry.options)
        if self._phase(entry) not in (*UP, Phase.EXITED):
            return
        if entry.phase in UP:
            await self.clock.sleep(effect.hang_s)
            if effect.error is not None:
                raise effect.error
            takes_s = entry.behaviour.stop_time
            await self.clock.sleep(min(takes_s, grace_s))
            code = KILLED if takes_s > grace_s else 0
            self.world.put(self.world.get(ref).ended(Phase.STOPPED, self.clock.now(), code))
            await self._hang_up(ref)
        else:
            self.world.put(replace(entry, phase=Phase.STOPPED))
        self._aftermath(effect, ref)

    async def kill(self, ref: Ref) -> None:
        entry = self.world.get(ref)
        effect = self.script.take(Action.KILL, ref, entry.options)
        if self._phase(entry) not in UP:
            return
        if effect.error is not None:
            raise effect.error
        self.world.put(entry.ended(Phase.EXITED, self.clock.now(), KILLED, "killed"))
        await self._hang_up(ref)
        self._aftermath(effect, ref)

    def end(self, ref: Ref, exit: Exit) -> None:  # noqa: A002
        entry = self.world.get(ref)
        if entry.phase in UP:
            self.world.put(entry.ended(Phase.EXITED, exit.at, exit.code, exit.reason))
            for session in self._sessions.pop(ref, []):
                session.hang_up()

    async def pause(self, ref: Ref) -> None:
        await self._switch(Action.PAUSE, ref, Phase.PAUSED)

    async def resume(self, ref: Ref) -> None:
        await self._switch(Action.RESUME, ref, Phase.RUNNING)

    async def delete(self, ref: Ref, *, purge: bool) -> None:
        await super().delete(ref, purge=purge)
        await self._hang_up(ref)

    async def aclose(self) -> None:
        for ref in list(self._sessions):
            await self._hang_up(ref)
        await super().aclose()

    async def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        entry = self.world.get(ref)
        effect = self.script.take(Action.LOGS, ref, entry.options)
        if effect.error is not None:
            raise effect.error
        shown: dict[float, float] = {}
        lines = list(self._news(entry, shown))
        for line in lines if tail is None else lines[-tail:] if tail else []:
            yield line
        while follow:
            await self.clock.sleep(LOOK_EVERY_S)
            now = self.world.find(ref)
            if now is None:
                return
            for line in self._news(now, shown):
                yield line

    async def stats(self, ref: Ref) -> Sample:
        entry, effect = self._permit(Action.STATS, ref)
        if effect.error is not None:
            raise effect.error
        spec = self._spec(entry)
        now = self.clock.now()
        return simulation.sample(
            ref,
            entry.behaviour,
            at=now,
            up_s=max(0.0, now - entry.runs[-1].started_at),
            cpus=float(getattr(spec, "cpus", None) or 1),
            memory_limit=int(spec.memory or DEFAULT_MEMORY_BYTES),
        )

    def _news(self, entry: Entry, shown: dict[float, float]) -> Iterator[LogLine]:
        """The lines that are not shown yet; `shown` has, for each run, until when it was."""
        now = self.clock.now()
        for run in entry.runs:
            until = min(now, run.ended_at or now)
            after = shown.get(run.started_at, -1.0)
            for at, text in simulation.log_of_run(entry.ref, entry.behaviour, run.started_at, until):
                if at > after:
                    yield LogLine(text=text, at=at)
            shown[run.started_at] = until

    def _status(self, entry: Entry) -> Status:
        status = super()._status(entry)
        phase = status.phase
        addresses: Sequence[Address] = self._addresses(entry) if phase in UP else ()
        return replace(
            status,
            started_at=entry.runs[-1].started_at if phase in UP else None,
            exit=entry.exit if phase is Phase.EXITED else None,
            addresses=tuple(addresses),
        )

    def _ref(self, entry: Entry) -> Ref:
        """The one that its port has, which is kept already."""
        held = self.world.index.held(str(entry.ref))
        known = self.world.known_port(held[0]) if held else None
        return super()._ref(entry) if known is None else known.port.consumer

    def _addresses(self, entry: Entry) -> Sequence[Address]:
        return [
            Address(network=port.network.name, address=port.address, mac=port.mac, interface=port.interface)
            for port in map(self._plugged, self.world.index.held(str(entry.ref)), entry.attachments.ports)
        ]

    def _plugged(self, key: str, port: Port) -> Port:
        """The port as the network has it, which is kept already, if that is still so."""
        known = self.world.known_port(key)
        return port if known is None or known.port.address != port.address else known.port

    async def _switch(self, action: Action, ref: Ref, phase: Phase) -> None:
        entry, effect = self._permit(action, ref)
        await self.clock.sleep(effect.hang_s)
        if effect.error is not None:
            raise effect.error
        self.world.put(replace(entry, phase=phase))
        self._aftermath(effect, ref)

    async def _hang_up(self, ref: Ref) -> None:
        for session in self._sessions.pop(ref, []):
            await session.aclose()


class FakeMachine(FakeWorkload[W]):
    """A workload that one can enter and plug: a VM or a container."""

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        return await self._session(Action.EXEC, ref, request)

    async def console(self, ref: Ref) -> Terminal:
        return Console(await self._session(Action.CONSOLE, ref, ExecRequest(argv=("sh",), tty=True)))

    async def reconnect(self, ref: Ref, ports: Sequence[Port]) -> None:
        entry, effect = self._permit(Action.RECONNECT, ref)
        if effect.error is not None:
            raise effect.error
        self.world.put(replace(entry, attachments=replace(entry.attachments, ports=tuple(ports))))
        self._aftermath(effect, ref)

    async def _session(self, action: Action, ref: Ref, request: ExecRequest) -> Session:
        entry, effect = self._permit(action, ref)
        await self.clock.sleep(effect.hang_s)
        if effect.error is not None:
            raise effect.error
        spec = self._spec(entry)
        environment = tuple({**spec.environment, **dict(request.environment)}.items())
        inside = replace(request, environment=environment)
        session = Session(inside, spec.hostname or ref.name, entry.behaviour.greeting)
        sessions = self._sessions.setdefault(ref, [])
        sessions[:] = [other for other in sessions if not other.ended]
        sessions.append(session)
        self._aftermath(effect, ref)
        return session
