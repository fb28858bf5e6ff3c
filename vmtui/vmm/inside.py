"""The machine's process, from its fork to its end: build, confine, run.

Devices are imported where they are built, before the walls go up: a VM without disks pays for none.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.boot.command_line import completed
from vmtui.vmm.boot.source import BootError
from vmtui.vmm.channel import Channel
from vmtui.vmm.config import Config
from vmtui.vmm.confine.enter import enter
from vmtui.vmm.control import Control, Refused, integer
from vmtui.vmm.devices.console import Console
from vmtui.vmm.devices.rng import Rng
from vmtui.vmm.devices.serial import PORTS, Serial
from vmtui.vmm.loop import Loop
from vmtui.vmm.machine import Cause, Ending, Machine
from vmtui.vmm.memory import HUGE_PAGE, PAGE, GuestMemory
from vmtui.vmm.opened import OpenCard, OpenDisk, Opened
from vmtui.vmm.ports import LAST_RESERVED_PORT, STATUS_PORT
from vmtui.vmm.terminal import Output, Terminal
from vmtui.vmm.virtio.device import VirtioDevice

if TYPE_CHECKING:
    from vmtui.vmm.devices.balloon import Balloon
    from vmtui.vmm.devices.blk.device import Blk
    from vmtui.vmm.devices.net.card import Card
    from vmtui.vmm.devices.vhost_user.blk import VhostUserBlk
    from vmtui.vmm.devices.vhost_user.device import VhostUser

MOST_BYTES = 1 << 62
MAX_BLK_QUEUES = 4
MOST_FAULTS = 8  # that are remembered: a guest may cause more
HERE = "the VMM"


class Ends(NamedTuple):
    """What connects it with the outside: the monitor, whoever calls, the log, who wants a port of the guest."""

    channel: Channel
    control: socket.socket
    log_fd: int
    vsock: socket.socket | None

    def fds(self) -> set[int]:
        """All of them."""
        vsock = set() if self.vsock is None else {self.vsock.fileno()}
        return {self.channel.fd, self.control.fileno(), self.log_fd} | vsock


class Inside:
    """Everything of one machine process. `run` never returns."""

    def __init__(self, config: Config, opened: Opened, ends: Ends) -> None:
        """Raises BootError, OSError, ValueError: it cannot be made as it was asked for."""
        self._config = config
        self._channel = ends.channel
        self._lock = threading.Lock()  # of the channel: several threads send
        self.main = Loop("main", self._loop_failed)
        self._loops: list[Loop] = []
        self._cards: list[Card] = []
        self._disks: list[str] = []  # by index
        self._raw: dict[str, Blk] = {}
        self._images: dict[str, VhostUserBlk] = {}
        self._carried_by: dict[str, str] = {}
        self._backends: dict[str, VhostUser] = {}
        self._lost: dict[str, str] = {}
        self._faults: deque[str] = deque(maxlen=MOST_FAULTS)
        self._asked: dict[int, Callable[[socket.socket | None], None]] = {}
        self._numbers = count()
        self._missing: tuple[str, ...] = ()
        self._exits_at_boot: int | None = None
        memory = GuestMemory(config.memory_bytes, hugepages=config.hugepages, prefault=config.prefault)
        self.machine = Machine(config.cpus, memory, self._ended, pci_ports=config.pci_ports)
        self.terminal = Terminal(self.main, Output(self.main, ends.log_fd))
        self._build(opened)
        if ends.vsock is not None:
            self._add_vsock(ends.vsock)
        self.machine.load(opened.kernel, completed(config.cmdline), opened.initrd)
        for boot in (opened.kernel, opened.initrd):
            if boot is not None:
                os.close(boot.fd)
        self.control = Control(self.main, ends.control, self._calls(), self.terminal)
        self.machine.events = self.control.broadcast
        self.main.watch(ends.channel.fd, self._told)

    def _build(self, opened: Opened) -> None:
        config, machine = self._config, self.machine
        serial = Serial(self.terminal, machine.interrupt_line(layout.COM1_GSI))
        machine.add_ports(layout.COM1_PORT, PORTS, serial)
        machine.plug(Console("console", self.main, self.terminal, serial))
        for disk in opened.disks:
            self._add_disk(disk)
        for card in opened.cards:
            self._add_card(card)
        for share in opened.shares:
            from vmtui.vmm.devices.fs import Fs

            lost, back = self._watcher(share.name)
            device = Fs(share.name, self._loop(share.name), share.connection, share.tag, lost=lost, back=back)
            self._backends[share.name] = device
            machine.plug(device)
        machine.plug(Rng("rng", self.main))
        page = HUGE_PAGE if config.hugepages else PAGE
        self._balloon: Balloon | None = None
        if config.balloon:
            from vmtui.vmm.devices.balloon import Balloon

            self._balloon = Balloon("balloon", self.main, config.memory_bytes, page)
            machine.plug(self._balloon)

    def _add_disk(self, disk: OpenDisk) -> None:
        self._disks.append(disk.name)
        loop = self._loop(disk.name)
        if disk.image is not None:
            from vmtui.vmm.devices.blk.device import Blk

            queues = min(self._config.cpus, MAX_BLK_QUEUES)
            raw = self._raw[disk.name] = Blk(disk.name, loop, disk.image, serial=disk.disk.serial, queues=queues)
            self._plug(raw, HERE)
            return
        from vmtui.vmm.backends.storage import DURABLE
        from vmtui.vmm.devices.vhost_user.blk import VhostUserBlk

        assert disk.connection is not None
        lost, back = self._watcher(disk.name)
        durable = disk.disk.format in DURABLE
        made = VhostUserBlk(disk.name, loop, disk.connection, durable=durable, lost=lost, back=back)
        self._backends[disk.name] = self._images[disk.name] = made
        self._plug(made, "qemu-storage-daemon")

    def _plug(self, device: VirtioDevice, carried_by: str) -> None:
        self.machine.plug(device)
        self._carried_by[device.name] = carried_by

    def _add_card(self, card: OpenCard) -> None:
        mac = bytes.fromhex(card.net.mac.replace(":", ""))
        made: Card
        if card.vhost_fd is not None:
            from vmtui.vmm.devices.net.vhost import VhostNet

            made, by = VhostNet(card.name, self.main, card.vhost_fd, card.tap, mac, card.net.mtu), "vhost-net"
        else:
            from vmtui.vmm.devices.net.device import Net

            made, by = Net(card.name, self._loop(card.name), card.tap, mac, card.net.mtu), f"{HERE} ({card.why})"
        self._cards.append(made)
        self._plug(made, by)

    def _add_vsock(self, listener: socket.socket) -> None:
        assert self._config.vsock_cid is not None
        from vmtui.vmm.devices.vsock.device import Vsock

        made = Vsock("vsock", self._loop("vsock"), self._config.vsock_cid, listener, self._ask_for)
        self.machine.plug(made)

    def _ask_for(self, port: int, guest_port: int, reply: Callable[[socket.socket | None], None]) -> None:
        """Whoever listens there; by the monitor, for nothing can be connected from here."""
        if port == STATUS_PORT and guest_port > LAST_RESERVED_PORT:
            reply(None)
            return
        number = next(self._numbers)
        self._asked[number] = reply
        if not self._send({"say": "vsock", "port": port, "id": number}):
            del self._asked[number]
            reply(None)

    def _loop(self, name: str) -> Loop:
        loop = Loop(name, self._loop_failed)
        self._loops.append(loop)
        return loop

    def _watcher(self, name: str) -> tuple[Callable[[str], None], Callable[[], None]]:
        def lost(reason: str) -> None:
            self._lost[name] = reason
            self.control.broadcast("backend_lost", {"device": name, "reason": reason})
            self._send({"say": "lost", "name": name})

        def back() -> None:
            self._lost.pop(name, None)
            self.control.broadcast("backend_back", {"device": name})

        return lost, back

    def run(self) -> NoReturn:
        """Confine, start all threads, serve until the machine ends. Raises OSError: a wall that must stand does not."""
        self._missing = enter(self._config.uid, file_bytes=None).missing
        for loop in self._loops:
            loop.start()
        self._send({"say": "started", "missing": list(self._missing)})
        self.machine.power_on()
        self.main.run()
        os._exit(0)

    # From outside

    def _calls(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            "info": lambda args: self._info(),
            "metrics": lambda args: self._metrics(),
            "pause": lambda args: self._changed("paused", self.machine.pause),
            "resume": lambda args: self._changed("resumed", self.machine.resume),
            "power_button": lambda args: self.machine.press_power_button(),
            "reset": lambda args: self.machine.end(Ending(Cause.RESTART, "asked for")),
            "kill": lambda args: self.machine.end(Ending(Cause.KILLED, "killed")),
            "console_size": lambda args: self.control.resize(args),
            "balloon": self._set_balloon,
            "disk_resized": self._resize_disk,
            "net_attach": self._attach,
        }

    def _changed(self, event: str, act: Callable[[], None]) -> None:
        act()
        self.control.broadcast(event, {})

    def _info(self) -> dict[str, Any]:
        return {
            **self.machine.info(),
            "walls_missing": list(self._missing),
            "lost": dict(self._lost),
            "faults": list(self._faults),
            "carried_by": dict(self._carried_by),
            "exits_at_boot": self._exits_at_boot,  # None: no init of ours has come up
        }

    def _metrics(self) -> dict[str, Any]:
        """With what the guest said last of its own memory; it is asked again for the next time."""
        found = self.machine.metrics()
        if self._balloon is not None:
            statistics, age_s = self._balloon.statistics()
            found["guest_memory"] = {**statistics, "age_s": round(age_s, 1)} if statistics else {}
            self._balloon.ask_statistics()
        return found

    def _set_balloon(self, args: dict[str, Any]) -> None:
        if self._balloon is None:
            raise Refused("none", "this VM has no balloon")
        self._balloon.set_target(integer(args, "target_bytes", self._config.memory_bytes))

    def _resize_disk(self, args: dict[str, Any]) -> None:
        index = integer(args, "index", max(0, len(self._disks) - 1))
        size = integer(args, "size_bytes", MOST_BYTES)
        if not self._disks:
            raise Refused("none", "this VM has no disk")
        name = self._disks[index]
        if name not in self._raw:
            self._send({"say": "resize", "name": name, "size_bytes": size})
            return
        try:
            self._raw[name].resize(size)
        except ValueError as error:
            raise Refused("invalid", str(error)) from None

    def _attach(self, args: dict[str, Any]) -> None:
        if not self._cards:
            raise Refused("none", "this VM has no network card")
        self._send({"say": "tap", "index": integer(args, "index", len(self._cards) - 1)})

    # With the monitor

    def _send(self, message: dict[str, Any]) -> bool:
        """False: it is gone, and we follow, for we die with it; or it has too much to read."""
        with self._lock:
            try:
                self._channel.send(message)
            except OSError:
                return False
        return True

    def _told(self, events: int) -> None:
        received = self._channel.receive()
        if received is None:
            os._exit(1)  # the monitor is gone
        message, fd = received
        if message.get("give") == "vsock":
            reply = self._asked.pop(int(message["id"]))
            reply(None if fd is None else socket.socket(fileno=fd))
            if fd is not None and message["port"] == STATUS_PORT and self._exits_at_boot is None:
                self._exits_at_boot = self.machine.metrics()["exits_total"]
                self.control.broadcast("ready", {})
            return
        if message.get("give") == "size":
            self._images[str(message["name"])].resized(int(message["size_bytes"]))
            return
        if fd is None:
            return
        match message.get("give"):
            case "tap":
                # not in this thread: the card's own loop may be waited for
                threading.Thread(target=self._plug_in, args=(int(message["index"]), fd), daemon=True).start()
            case "back-end":
                self._backends[str(message["name"])].reconnected(socket.socket(fileno=fd), clean=bool(message["clean"]))
            case _:
                os.close(fd)

    def _plug_in(self, index: int, fd: int) -> None:
        try:
            self._cards[index].attach(fd)
        except OSError as error:
            self._faults.append(f"net{index}: {error}")

    # Its end

    def _loop_failed(self, name: str, error: BaseException) -> None:
        self._faults.append(f"{name}: {type(error).__name__}: {error}")

    def _ended(self, ending: Ending) -> None:
        self.main.call(lambda: self._finish(ending))

    def _finish(self, ending: Ending) -> None:
        """In the main thread. What is written is on its way: the log is a pipe that the monitor reads to its end."""
        self.terminal.flush()
        if ending.cause in (Cause.PANIC, Cause.RESET, Cause.FAULT) and (panic := self.terminal.last_panic()):
            ending = Ending(Cause.PANIC, panic)
        self.control.tell("shutdown", {"reason": ending.reason, "code": ending.code})
        metrics = self.machine.metrics()
        self.machine.close()
        self.terminal.close()
        self._drain_log()
        self._send(
            {
                "say": "ended",
                "cause": ending.cause.name,
                "code": ending.code,
                "reason": ending.reason,
                "exits_total": metrics["exits_total"],
            }
        )
        os._exit(0)

    def _drain_log(self) -> None:
        deadline = time.monotonic() + 2.0
        while self.terminal.log_waits and time.monotonic() < deadline:
            time.sleep(0.005)
            self.terminal.flush_log()


def serve(config: Config, opened: Opened, ends: Ends) -> NoReturn:
    """In the forked child. What goes wrong before it runs is told to the monitor, with the reason."""
    try:
        _keep_only(opened.fds() | ends.fds())
        Inside(config, opened, ends).run()
    except BootError as error:
        said = f"{error.message}\n{error.hint}"
    except (OSError, ValueError) as error:
        said = str(error)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    try:
        ends.channel.send({"say": "failed", "reason": said[:4000]})
    finally:
        os._exit(1)


def _keep_only(kept: set[int]) -> None:
    """Close what is the monitor's: the machine is not to have its back-ends' monitors, nor its files.

    The monitor's objects are still there, and never used again: `os._exit` ends this process, so that none is deleted.
    """
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    lowest = 3
    for fd in sorted(kept):
        os.closerange(lowest, fd)
        lowest = fd + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
