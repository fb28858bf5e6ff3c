"""The interface of a backend: a small core, and optional roles.

A capability is the existence of its methods. Each bundled backend carries a static assignment that mypy checks, since
`isinstance` against a runtime Protocol compares names only.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import msgspec

from vmtui.core.errors import Conflict, Fault, MissingCapability
from vmtui.core.lifecycle import Role
from vmtui.core.resource import Kind, Port, Problem, Ref, Sample, Status
from vmtui.core.specs import Spec
from vmtui.core.units import Publish, Size
from vmtui.host.paths import Paths

S = TypeVar("S", bound=Spec)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What a long operation does just now. `fraction` is 0 to 1, None if it cannot be known."""

    message: str
    fraction: float | None = None


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """The Report of those who do not care."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What trying the backend showed. Not usable ⇒ `problems` is not empty. `facts` such as versions, in order."""

    backend: str
    kind: Kind
    usable: bool
    summary: str
    problems: tuple[Problem, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


class Desired(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """A resource as it should be: the spec, what only its backend knows, and the hash over both."""

    ref: Ref
    backend: str
    spec: S
    options: Any = None  # an instance of the backend's options_type, or None
    spec_hash: str = ""


class DiskAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """A disk as its consumer opens it. `serial` is shown to the guest (20 bytes at most, virtio 5.2.6)."""

    ref: Ref
    path: str
    format: str
    serial: str
    read_only: bool = False


class FileTree(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a resource's data: a folder, or with `image` one file that can only be read."""

    name: str
    path: str
    image: bool = False


class Attachments(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload is plugged into, in the order of its spec."""

    disks: tuple[DiskAttachment, ...] = ()
    ports: tuple[Port, ...] = ()


class PortRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A place on a network. The same network, consumer and index always get the same interface, MAC and address."""

    consumer: Ref
    index: int
    medium: str  # "tap" or "veth"
    hostname: str
    publish: tuple[Publish, ...] = ()


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A command to run inside. With `tty`, stdout and stderr are one terminal of `rows` by `columns`."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    working_dir: str | None = None
    tty: bool = False
    rows: int = 24
    columns: int = 80


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a log, without its newline, undecodable bytes replaced. Still hostile: escapes are not removed."""

    text: str
    at: float | None = None
    stream: str = "stdout"
    partial: bool = False  # it goes on in the next line of its stream; `logs` joins those, a LogSource does not


class LogSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a log lies: files that continue one another, oldest first; those not there yet are named, too.

    The last one is written to; a rotation renames it to the one before, or empties it. `parse` reads one line without
    its newline and takes any bytes; the text is a part of the line, decoded as UTF-8. `timed`: lines carry their time.
    """

    paths: tuple[Path, ...]
    parse: Callable[[bytes], LogLine]
    timed: bool = False


class Terminal(Protocol):
    """A two-way byte stream to a console or tty. One owner, who closes it."""

    async def read(self) -> bytes:
        """The next bytes; b"" at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the other end is gone."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """Best effort: a serial line has no size."""
        ...

    async def aclose(self) -> None: ...


class ExecSession(Protocol):
    """A running command. `aclose` ends it if it still runs."""

    async def read(self) -> tuple[str, bytes] | None:
        """The next ("stdout" | "stderr", bytes), None when both have ended."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, rows: int, columns: int) -> None: ...

    async def wait(self) -> int:
        """The exit code as a shell shows it, after `read` has returned None."""
        ...

    async def aclose(self) -> None: ...


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine gives a backend at its construction."""

    paths: Paths
    workspace: str  # random hex, made with the state directory; part of every ownership mark

    def mark(self, ref: Ref) -> str:
        """The ownership mark: on interfaces (ifalias), nft rules (comment), OCI annotations and side files."""
        return f"vmtui:{self.workspace}:{ref}"

    def owned(self, mark: str) -> Ref | None:
        """The resource that a mark names, if it is of this workspace."""
        head, _, rest = mark.partition(":")
        workspace, _, name = rest.partition(":")
        if head != "vmtui" or workspace != self.workspace:
            return None
        try:
            return Ref.parse(name)
        except ValueError:
            return None

    def reap_argv(self, ref: Ref) -> list[str]:
        """What the parent of a workload runs when it ends, with `paths.environment()` set: see engine/reap.py."""
        return [sys.executable, "-m", "vmtui", "reap", str(ref)]

    def resource_dir(self, ref: Ref) -> Path:
        """Where a backend keeps what survives a reboot; it alone makes and removes it."""
        return self.profile_dir(ref.profile) / ref.kind / ref.name

    def profile_dir(self, profile: str) -> Path:
        """Where the directories of a profile's resources are."""
        return self.paths.state / "resources" / profile

    def runtime_dir(self, ref: Ref) -> Path:
        """Where a backend keeps sockets and pid files: short, and gone after a reboot."""
        return self.paths.runtime / ref.token(self.workspace)


class Backend(ABC, Generic[S]):
    """One kind of resource managed by one technology.

    Constructing one does no I/O and imports nothing heavy. Methods may be called concurrently for different refs;
    the engine never calls two mutating methods for the same ref at once.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    options_type: ClassVar[type[msgspec.Struct] | None] = None  # the sub-table [KIND.NAME.BACKEND]
    priority: ClassVar[int] = 0  # `auto` takes the usable backend with the highest; below 0 never

    def __init__(self, context: Context) -> None:
        self.context = context

    @abstractmethod
    async def probe(self) -> Probe:
        """Try the thing and say usable or not, why, and the command that mends it. Never raises."""

    @abstractmethod
    async def scan(self) -> Sequence[Status]:
        """Everything of this workspace that the host has, half-made things included. Faults go into problems."""

    @abstractmethod
    async def inspect(self, ref: Ref) -> Status:
        """One resource, with all facts. Raises only NotFound."""

    @abstractmethod
    async def create(self, desired: Desired[S], report: Report) -> None:
        """Make it, not running. Idempotent: the same spec hash again changes nothing. Undoes itself on failure."""

    @abstractmethod
    async def delete(self, ref: Ref, *, purge: bool) -> None:
        """Remove it and all that belongs to it, stopping it first if it runs. Absent is success.

        Data (disk images, named volumes) goes only with `purge`; a disk without `purge` is left as it is.
        Also removes what is half made. Raises ResourceBusy, OperationFailed.
        """

    @abstractmethod
    def watch(self) -> AsyncIterator[Ref]:
        """Refs whose status may have changed, as events from the host (inotify, pidfd, netlink), until closed."""

    async def check(self, desired: Desired[S], others: Sequence[Desired[Any]]) -> Sequence[Problem]:  # noqa: ARG002
        """What on this host makes `desired` impossible, found before anything changes and without changing anything.

        `others` are what is made of the same kind in the same run, `desired` among them. An unreadable file, a subnet
        that overlaps, a port in use. Never raises.
        """
        return ()

    def unsuitable(self, spec: S) -> str | None:  # noqa: ARG002
        """What in this spec the backend has no part for, whatever the host: then `auto` leaves it to another one.

        From the spec alone, and without I/O. None: nothing. `check` says the same to who names the backend.
        """
        return None

    async def aclose(self) -> None:
        """Close what is open here. What runs goes on."""
        return


@runtime_checkable
class Runnable(Protocol):
    async def start(self, ref: Ref, attachments: Attachments, report: Report) -> None:
        """Start what `create` made. Running already is success. Raises and leaves it stopped on failure."""
        ...

    async def stop(self, ref: Ref, *, grace_s: float) -> None:
        """Ask it to end, end it after `grace_s`. Not running is success."""
        ...


@runtime_checkable
class Killable(Protocol):
    async def kill(self, ref: Ref) -> None:
        """End it at once. Not running is success."""
        ...


@runtime_checkable
class Pausable(Protocol):
    async def pause(self, ref: Ref) -> None: ...

    async def resume(self, ref: Ref) -> None: ...


@runtime_checkable
class HasConsole(Protocol):
    async def console(self, ref: Ref) -> Terminal:
        """Attach to its console. Raises NotPermitted when it has none."""
        ...


@runtime_checkable
class HasLogs(Protocol):
    def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        """The last `tail` lines (None: all), then, with `follow`, new ones until it is deleted."""
        ...


@runtime_checkable
class LogFiles(Protocol):
    """A log that lies in files, for those who look anywhere in it instead of reading it all."""

    async def log_source(self, ref: Ref) -> LogSource:
        """Its files. Raises NotFound."""
        ...


@runtime_checkable
class Executes(Protocol):
    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        """Run a command inside. Raises NotPermitted, NotFound."""
        ...


@runtime_checkable
class Measurable(Protocol):
    async def stats(self, ref: Ref) -> Sample: ...


@runtime_checkable
class CountsExits(Protocol):
    """A virtual machine whose VMM knows what its guest left for. No action of its own: a part of `inspect`."""

    async def exits(self, ref: Ref) -> Sequence[tuple[str, int]]:
        """What its vCPUs left the guest for since it began, and how often, the most frequent first.

        Raises NotFound, NotPermitted (not running), OperationFailed.
        """
        ...


@runtime_checkable
class Resizable(Protocol):
    async def resize(self, desired: Desired[Any], *, shrink: bool, report: Report) -> None:
        """Change the size in place. Raises NotPermitted for a smaller one without `shrink`, ResourceBusy."""
        ...


@runtime_checkable
class Reconnectable(Protocol):
    async def reconnect(self, ref: Ref, ports: Sequence[Port]) -> None:
        """Plug a running workload into ports that were made anew, without restarting it."""
        ...


@runtime_checkable
class DiskImage(Protocol):
    """A disk that others can open, and that can be moved in and out."""

    async def attach(self, ref: Ref, consumer: Ref) -> DiskAttachment:
        """How `consumer` opens it. Raises ResourceBusy if another running consumer writes to it."""
        ...

    async def export(self, ref: Ref, target: Path, image_format: str, report: Report) -> None:
        """Write a copy in another format. Raises ResourceBusy; a half-written target is removed."""
        ...

    async def check_image(self, ref: Ref) -> Sequence[Problem]:
        """The image's own consistency check."""
        ...


@runtime_checkable
class HasFiles(Protocol):
    """Data that people copy in and out."""

    async def files(self, ref: Ref) -> Sequence[FileTree]:
        """Its parts that are there. Hostile: what runs in it may have made any link in them."""
        ...

    def held(self, ref: Ref) -> AbstractContextManager[None]:
        """While it is entered nobody else begins to use what only one may. Entering raises ResourceBusy, OSError."""
        ...


@runtime_checkable
class ProvidesPorts(Protocol):
    """A network that workloads plug into."""

    async def add_port(self, network: Ref, request: PortRequest) -> Port:
        """Make or mend the port, its lease, name and published ports. Idempotent. Raises Conflict (port in use)."""
        ...

    async def remove_ports(self, consumer: Ref, *, forget: bool) -> None:
        """Unplug from all networks: interfaces, names and rules go; leases too with `forget`. Absent is success."""
        ...


ROLES: dict[Role, type] = {
    Role.RUNNABLE: Runnable,
    Role.KILLABLE: Killable,
    Role.PAUSABLE: Pausable,
    Role.HAS_CONSOLE: HasConsole,
    Role.HAS_LOGS: HasLogs,
    Role.EXECUTES: Executes,
    Role.MEASURABLE: Measurable,
    Role.RESIZABLE: Resizable,
    Role.RECONNECTABLE: Reconnectable,
    Role.IMAGE: DiskImage,
}


def roles(backend: Backend[Any]) -> frozenset[Role]:
    """The roles that a backend has."""
    return _roles_of(type(backend))


@cache
def _roles_of(made: type) -> frozenset[Role]:
    return frozenset(role for role, protocol in ROLES.items() if issubclass(made, protocol))


def problem_of(fault: Fault, message: str = "", *, code: str = "invalid") -> Problem:
    """A fault as `Backend.check` tells it: `code`, unless the engine raises its class again as what it is."""
    codes: dict[type[Fault], str] = {MissingCapability: "missing-capability", Conflict: "conflict"}
    known = next((word for kind, word in codes.items() if isinstance(fault, kind)), code)
    return Problem(code=known, message=message or fault.message, hint=fault.hint)


def resized(old: Size | None, new: Size | None) -> int:
    """-1, 0 or 1: whether a size shrinks, stays or grows; an unknown one stays."""
    return 0 if old is None or new is None else (new > old) - (new < old)
