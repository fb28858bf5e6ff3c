"""A guest's network driver by hand, on either of the cards, and the host's network that it is plugged into."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import frames
from tests.support.frames import Header
from tests.support.netns import fresh_namespace
from tests.support.virtqueue import Driver, Piece
from vmtui.vmm.devices.net.card import RX, TX, Card
from vmtui.vmm.devices.net.features import HEADER_BYTES, MRG_RXBUF
from vmtui.vmm.devices.net.tap import open_tap
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.queue import RING_EVENT_IDX

MAC = bytes.fromhex("020000000002")
GUEST, HOST = "10.7.0.2", "10.7.0.1"
MEMORY_BYTES = 64 << 20
MTU = 1500
# include/uapi/linux/sockios.h, include/uapi/linux/if.h
SIOCGIFFLAGS, SIOCGIFHWADDR = 0x8913, 0x8927
IFF_RUNNING = 0x40


@contextmanager
def lan(*taps: str) -> Iterator[None]:
    """A network of its own with persistent TAPs; the first has the host's address. Nothing is sent there unasked."""
    with fresh_namespace():
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        for name in taps:
            make_tap(name)
        move_host(taps[0])
        yield


def make_tap(name: str) -> None:
    _batch(f"tuntap add dev {name} mode tap vnet_hdr", f"link set {name} mtu {MTU} up")


def move_host(name: str) -> None:
    """Give the host's address to this interface, and let it know the guest there."""
    _batch(
        "addr flush to 10.7.0.0/24",
        f"addr add {HOST}/24 dev {name}",
        f"neigh replace {GUEST} lladdr {MAC.hex(':')} dev {name} nud permanent",
    )


def _batch(*commands: str) -> None:
    """As one process: in the lab each takes half a second. Raises CalledProcessError."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), check=True, text=True, timeout=60)


def plug(name: str) -> int:
    """A descriptor of the TAP, once the host sends there: before that it drops packets."""
    fd = open_tap(name)
    end = time.monotonic() + 60
    while not struct.unpack_from("<H", _ask(name, SIOCGIFFLAGS), 16)[0] & IFF_RUNNING:
        assert time.monotonic() < end, f"{name} does not come up"
        time.sleep(0.005)
    return fd


def host_mac(name: str) -> bytes:
    return _ask(name, SIOCGIFHWADDR)[18:24]


def _ask(name: str, request: int) -> bytes:
    """netdevice(7): struct ifreq, the name and then what was asked for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, request, struct.pack("40s", name.encode()))


@contextmanager
def host_udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((HOST, 0))
        made.settimeout(60)
        yield made


class Nic:
    """The driver of a card. It kicks when the card asks for it, and not otherwise."""

    def __init__(self, card: Card, *, refused: int = 0, buffer_bytes: int = 2048, buffers: int = 256) -> None:
        self.driver = Driver(card, refused=refused, memory=GuestMemory(MEMORY_BYTES))
        self.buffer_bytes, self.buffers = buffer_bytes, buffers
        self._offered = 0  # the avail index at the last look for whether a kick is wanted
        self.header = Header()

    def start(self, *, posted: bool = True) -> Self:
        self.driver.start()
        self._offered = 0
        if posted:
            self.post(self.buffers)
        return self

    def post(self, count: int) -> None:
        """So many receive buffers more."""
        ring = self.driver.drivers[RX]
        for _ in range(count):
            ring.add_pieces([Piece(ring.allocate(self.buffer_bytes), self.buffer_bytes, True)])
        self._kick_if_wanted()

    def _kick_if_wanted(self) -> None:
        """2.7.10: of the receive queue."""
        ring = self.driver.drivers[RX]
        if self.driver.features & RING_EVENT_IDX:
            event = self.driver.memory.u16(ring.used_addr + 4 + 8 * ring.size)
            wanted = (ring.avail - event - 1) & 0xFFFF < (ring.avail - self._offered) & 0xFFFF
        else:
            wanted = not self.driver.memory.u16(ring.used_addr) & 1
        self._offered = ring.avail
        if wanted:
            self.driver.kick(RX)

    def send(self, frame: bytes, header: Header | None = None, *, indirect: bool = False) -> None:
        """And wait until it is taken."""
        used, _ = self.driver.request([(header or self.header).pack(), frame], queue=TX, indirect=indirect)
        assert used.written == 0

    def receive(self, timeout_s: float = 60.0, *, repost: bool = True) -> tuple[Header, bytes]:
        """The next packet, from as many buffers as it says, which must all be there at once."""
        ring = self.driver.drivers[RX]
        pieces: list[list[Piece]] = []
        data, count = b"", 1
        while len(pieces) < count:
            if data:
                assert ring.used != ring.seen, "a part of a packet came without the others"
            while ring.used == ring.seen and not data:  # so that we see which it will be
                before = time.monotonic()
                self._await(timeout_s)
                timeout_s -= time.monotonic() - before
            head = ring.used_entry(ring.seen).head
            pieces.append(ring.chains[head][0])
            taken = ring.take()
            assert taken is not None
            if not data and self.driver.features & MRG_RXBUF:  # else an older vhost-net leaves the field alone
                count = Header.of(taken[1]).num_buffers
            assert len(pieces) == count or taken[0].written == len(taken[1])
            data += taken[1][: taken[0].written]
        if repost:
            for each in pieces:
                ring.add_pieces(each)
            self._kick_if_wanted()
        return Header.of(data), data[HEADER_BYTES:]

    def _await(self, timeout_s: float) -> None:
        ring, call = self.driver.drivers[RX], self.driver.calls[RX]
        if self.driver.features & RING_EVENT_IDX:
            ring.await_next()
        if ring.used == ring.seen:
            assert timeout_s > 0, f"no packet came; failures: {self.driver.failures}"
            select.select([call.fd], [], [], timeout_s)
            call.drain()

    def receive_some(self, wanted: Callable[[bytes], bool], timeout_s: float = 60.0) -> tuple[Header, bytes]:
        """The next packet of which that is true."""
        end = time.monotonic() + timeout_s
        while True:
            header, frame = self.receive(end - time.monotonic())
            if wanted(frame):
                return header, frame

    def close(self) -> None:
        self.driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Guest:
    """What a guest says on that card: it has the address GUEST, and knows the host's."""

    def __init__(self, nic: Nic, tap: str) -> None:
        self.nic, self.peer_mac = nic, host_mac(tap)

    def ip(self, protocol: int, payload: bytes) -> bytes:
        return frames.ethernet(self.peer_mac, MAC, frames.IPV4, frames.ipv4(protocol, GUEST, HOST, payload))

    def ping(self, data: bytes) -> bytes:
        """What came back."""
        self.nic.send(self.ip(frames.ICMP, frames.icmp_echo(8, 7, 1, data)))
        _, frame = self.nic.receive_some(lambda frame: frame[23] == frames.ICMP and frame[34] == 0)
        return frame[42:]

    def arp(self) -> bytes:
        """The host's address by its own word."""
        request = frames.arp(1, MAC, GUEST, HOST)
        self.nic.send(frames.ethernet(frames.BROADCAST, MAC, frames.ARP, request))
        _, frame = self.nic.receive_some(lambda frame: frame[12:14] == b"\x08\x06" and frame[21] == 2)
        return frame[22:28]
