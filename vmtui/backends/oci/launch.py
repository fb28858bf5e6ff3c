"""Starts a container, and takes apart what a start has made: the two halves of one piece of knowledge."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from vmtui.backends.oci import names
from vmtui.backends.oci.options import OciOptions
from vmtui.backends.oci.places import PinnedImage, Places, RunState
from vmtui.backends.oci.processes import ancestors, children, with_argument
from vmtui.backends.oci.trees import remove_tree
from vmtui.backends.oci.volumes import Binder, Volumes, adopt, require_sources
from vmtui.core.backend import Context, Desired, Progress, Report
from vmtui.core.errors import OperationFailed
from vmtui.core.resource import Port
from vmtui.core.specs import ContainerSpec
from vmtui.host.files import in_words, read_tail, remedy
from vmtui.host.netns import plug_veth
from vmtui.host.process import ProcessId, boot_id, tail, which
from vmtui.host.tasks import uncancelled
from vmtui.runtime import conmon, users
from vmtui.runtime.bundle import Placement, config_json
from vmtui.runtime.cgroups import Hierarchy, hierarchies, mode
from vmtui.runtime.idmap import IdMapUnsupported, IdRanges, user_namespace
from vmtui.runtime.mount_namespace import MountNamespace, make_stage
from vmtui.runtime.oci_runtime import choose
from vmtui.runtime.overlay import mount_overlay

MARK = "org.vmtui.mark"  # annotations of config.json
LEAST_ROOM = 64 << 10  # what a runtime keeps of one container, and a bit
SPEC_HASH = "org.vmtui.spec-hash"


class Launch:
    """One start of one container."""

    def __init__(
        self,
        context: Context,
        places: Places,
        desired: Desired[ContainerSpec],
        image: PinnedImage,
        ports: Sequence[Port],
        ids: IdRanges,
        *,
        exit_command: Sequence[str] | None = None,
        borrowed: Sequence[str] = (),
    ) -> None:
        """`exit_command` in place of the context's; `borrowed` are folders of the host, shown as they are."""
        self._context = context
        self._places = places
        self._desired = desired
        self._spec = desired.spec
        self._options = desired.options if isinstance(desired.options, OciOptions) else OciOptions()
        self._image = image
        self._ports = ports
        self._ids = ids
        self._borrowed = borrowed
        self._exit_command = context.reap_argv(places.ref) if exit_command is None else exit_command
        self._hostname = self._spec.hostname or desired.ref.name

    async def run(self, report: Report) -> None:
        """All of it, from the mounts to the running process. On failure, cancellation included, nothing is left.

        Raises Fault.
        """
        places = self._places
        await clear(places)
        require_sources(self._spec.volumes)
        try:
            trees = hierarchies()
            runtime = choose(self._options.runtime, mode(trees))
            places.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
            places.oom.unlink(missing_ok=True)
            rotate(places, int(self._spec.log_max_size))
            names.write(places.etc, self._hostname, self._ports)
            report(Progress(message="mounting its root file system"))
            state = RunState(boot=boot_id(), runtime=runtime)
            if self._options.userns == "host":
                await self._create(state, trees)
            else:
                await self._create_mapped(state, trees)
            await self._connect()
            report(Progress(message=f"starting it with {runtime.name}"))
            await places.containers(state).start(places.name)
        except BaseException as error:
            await uncancelled(clear(places))
            if isinstance(error, OSError):
                paths = self._context.paths
                hint = remedy(error, paths.state, paths.cache, paths.runtime)
                raise OperationFailed(f"{places.ref} cannot be started: {in_words(error)}", hint=hint) from error
            raise

    async def _create_mapped(self, state: RunState, trees: tuple[Hierarchy, ...]) -> None:
        """In a user namespace; without one only where the host cannot, and then the status says so."""
        base = self._ids.take(self._places.ref)
        try:
            async with user_namespace(base) as userns_fd:
                mapped = RunState(boot=state.boot, runtime=state.runtime, id_base=base)
                await self._create(mapped, trees, userns_fd)
        except IdMapUnsupported as error:
            if self._options.userns == "private":
                raise
            shared = RunState(boot=state.boot, runtime=state.runtime, shared_ids_because=error.message)
            await self._create(shared, trees)

    async def _create(self, state: RunState, trees: tuple[Hierarchy, ...], userns_fd: int | None = None) -> None:
        places = self._places
        with MountNamespace() as namespace:
            config = await namespace.run(lambda: self._assemble(state, trees, userns_fd))
            (places.runtime / "config.json").write_bytes(config)
            places.write_state(state)
            enter = [which("nsenter"), f"--mount={namespace.path}", "--", state.runtime.path]
            containers = places.containers(state)
            try:
                await conmon.create(
                    places.conmon,
                    bundle=places.runtime,
                    runtime=[*enter, *containers.global_arguments],
                    log=places.log,
                    log_max_bytes=int(self._spec.log_max_size),
                    terminal=self._spec.tty,
                    exit_command=self._exit_command,
                    environment=self._context.paths.environment(),
                )
            except OperationFailed as fault:
                said = containers.last_error() or fault.details
                message = f"{places.ref} cannot be started: {said or fault}"
                raise OperationFailed(message, hint=self._remedy(said)) from fault

    def _assemble(self, state: RunState, trees: tuple[Hierarchy, ...], userns_fd: int | None) -> bytes:
        """Mount everything, in the namespace's thread; returns config.json."""
        places, spec, paths = self._places, self._spec, self._context.paths
        sources = [Path(mount.source) for mount in spec.volumes if not mount.is_volume]
        rootfs, stage = make_stage((paths.state, paths.cache, paths.runtime, *sources))
        staging = f"{stage}/layers"
        os.mkdir(staging)
        mount_overlay(self._image.layers, places.writable, rootfs, staging, userns_fd, state.id_base or 0)
        root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            user = users.resolve(root_fd, spec.user or self._image.config.user)
            binds = Binder(stage, userns_fd)
            for name in names.FILES:
                binds.add(places.etc / name, f"/etc/{name}", read_only=False)
            for folder in self._borrowed:
                binds.add(Path(folder), folder, read_only=True, mapped=False)
            volumes = Volumes(self._context)
            for mount in spec.volumes:
                source = Path(mount.source)
                if mount.is_volume:
                    source = volumes.ensure(places.ref.profile, mount.source)
                    adopt(source, root_fd, mount.target, state.id_base)
                binds.add(source, mount.target, read_only=mount.read_only)
        finally:
            os.close(root_fd)
        placement = Placement(
            rootfs=rootfs,
            hostname=self._hostname,
            cgroup=places.name,
            user=user,
            id_base=state.id_base,
            binds=tuple(binds),
            swap_accounted=_swap_accounted(trees),
            annotations={MARK: self._context.mark(places.ref), SPEC_HASH: self._desired.spec_hash},
        )
        return config_json(spec, self._image.config, placement)

    def _remedy(self, said: str) -> str:
        """What mends a start that the runtime refused."""
        room = os.statvfs(self._context.paths.runtime)
        if "no space left" in said or room.f_bavail * room.f_frsize < LEAST_ROOM:  # runc loses the reason
            return f"df -h {self._context.paths.runtime}"
        if "exec:" in said:
            return 'set command = ["PROGRAM", …] to one that the image has'
        return "vmtui doctor"

    async def _connect(self) -> None:
        process = self._places.conmon.container()
        if process is None:
            raise OperationFailed(f"{self._places.ref} ended while it was created", details=tail_of(self._places.log))
        await plug(process.pid, self._ports)


async def plug(pid: int, ports: Sequence[Port]) -> None:
    """Move each port into the network namespace of `pid`. Raises Fault."""
    routed = next((port.index for port in ports if port.gateway), None)  # one default route, by the first that has one
    for port in ports:
        await plug_veth(
            pid,
            port.peer,
            name=f"eth{port.index}",
            address=port.address,
            prefix=port.prefix,
            gateway=port.gateway if port.index == routed else "",
            mac=port.mac,
            mtu=port.mtu,
        )


async def clear(places: Places) -> None:
    """Remove all that a start makes: processes, cgroup, runtime state, sockets. Changes and log stay.

    Absent is success. Raises OperationFailed.
    """
    parent, own = places.conmon.conmon(), ancestors()
    processes: list[ProcessId] = []
    if parent is not None:
        parent.signal(signal.SIGSTOP)  # from here on it starts nothing, and reports no end that was asked for
        processes += [parent, *(process for process in children(parent.pid) if process.pid not in own)]
    if places.runtime.exists():
        # Runtime commands whose conmon or front end was killed.
        processes += [process for process in with_argument(places.runtime_root) if process.pid not in own]
    for process in processes:
        process.signal(signal.SIGKILL)
    await places.cgroup.end()
    for process in processes:
        if not await process.wait(5.0):
            raise OperationFailed(f"{places.ref}: process {process.pid} does not end")
    await remove_tree(places.runtime)


def rotate(places: Places, limit_bytes: int) -> None:
    """conmon counts only what it wrote itself: keep a long history to one older file. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if places.log.stat().st_size >= limit_bytes // 2:
            places.log.replace(places.old_log)


def tail_of(log: Path) -> str:
    """The end of a log, printable."""
    return tail(b"\n".join(read_tail(log, 20)))


def _swap_accounted(trees: tuple[Hierarchy, ...]) -> bool:
    for tree in trees:
        if "memory" in tree.controllers:
            return (tree.mountpoint / "memory.memsw.limit_in_bytes").exists()
    return Path("/proc/swaps").exists()
