"""The network card whose packets a loop of ours carries, alone: between rings and a real TAP.

`python -m bench.vmm.net`, as root. The peer is the least that Python can do with a TAP: write the same packet again and
again, read into the same buffer again and again.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial

from bench.measure import Row, table
from tests.support import frames
from tests.support.frames import Header
from tests.support.netns import ip
from tests.support.nic import GUEST, HOST, MAC, Nic, host_udp, lan, plug
from tests.support.virtqueue import Piece
from vmtui.vmm.devices.net.card import RX, TX
from vmtui.vmm.devices.net.device import Net
from vmtui.vmm.devices.net.tap import Tap
from vmtui.vmm.loop import Loop

JUMBO = 64_000  # the TAP's MTU for large packets
BATCH = 128
ROUNDS = 100


def rows() -> list[Row]:
    """Raises CalledProcessError, OSError: not root, or no TUN."""
    found = []
    with lan("tap0"):
        ip(f"link set tap0 mtu {JUMBO}")
        loop = Loop("bench", _failed)
        net = Net("net0", loop, Tap(plug("tap0")), MAC, JUMBO)
        with Nic(net) as nic, host_udp() as host:
            nic.start(posted=False)
            for what, size in (("64 B", 64), ("1500 B", 1458), ("60 KB", 60_000)):
                found.append(_row(f"sent, {what}", size, *_sending(net, nic, size)))
                found.append(_row(f"received, {what}", size, *_receiving(net, nic, host, size)))
        net.close()
        loop.close()
    return found


def _row(what: str, size: int, ours_s: float, peer_s: float) -> Row:
    def figures(seconds: float) -> str:
        return f"{seconds * 1e6:.2f} us, {1e-3 / seconds:.0f}k/s, {size / seconds / 1e9:.2f} GB/s"

    return Row(f"virtio-net in process: {what}", figures(ours_s), figures(peer_s), ours_s / peer_s)


def _sending(net: Net, nic: Nic, size: int) -> tuple[float, float]:
    """Seconds a packet, ours and the peer's. They are addressed to nobody, so the host does nothing with them."""
    udp = frames.udp((GUEST, 9), (HOST, 9), bytes(size))
    frame = frames.ethernet(b"\x02" + bytes(5), MAC, frames.IPV4, frames.ipv4(frames.UDP, GUEST, HOST, udp))
    packet = Header().pack() + frame
    ring = nic.driver.drivers[TX]
    at = ring.allocate(len(packet))
    nic.driver.memory.write(at, packet)
    ours, peer = [], []
    for _ in range(ROUNDS):
        for _ in range(BATCH):  # as Linux sends: header and data in one, or two with pages behind
            ring.add_pieces([Piece(at, len(packet), False)])
        ours.append(_per_packet(partial(_send_all, net, ring.avail)))
        while ring.take():
            pass
        assert net.tap is not None
        peer.append(_per_packet(partial(_write, net.tap.fd, packet)))
    return min(ours), min(peer)


def _receiving(net: Net, nic: Nic, host: socket.socket, size: int) -> tuple[float, float]:
    """Seconds a packet, ours and the peer's; buffers of 2 KiB, merged for larger ones."""
    ring = nic.driver.drivers[RX]
    batch = BATCH if size < 2048 else 256 * nic.buffer_bytes // (size + 2048)
    data = bytes(size)
    buffer = bytearray(1 << 16)
    ours, peer = [], []
    for _ in range(ROUNDS):
        if not ring.chains:
            nic.post(256)
        before = net.counters()["rx_packets"]
        for _ in range(batch):
            host.sendto(data, (GUEST, 9))
        ours.append(_per_packet(partial(_take_all, net, before + batch), batch))
        while ring.used != ring.seen:
            pieces = ring.chains[ring.used_entry(ring.seen).head][0]
            ring.take()
            ring.add_pieces(pieces)
        for _ in range(batch):
            host.sendto(data, (GUEST, 9))
        assert net.tap is not None
        peer.append(_per_packet(partial(_read, net.tap.fd, buffer), batch))
    return min(ours), min(peer)


def _send_all(net: Net, until_used: int) -> None:
    assert net.session is not None
    queue = net.session.queues[TX]
    while queue.used != until_used:
        net.run(TX)


def _take_all(net: Net, until_packets: int) -> None:
    while net.counters()["rx_packets"] != until_packets:
        net.run(RX)


def _write(fd: int, packet: bytes) -> None:
    for _ in range(BATCH):
        os.write(fd, packet)


def _read(fd: int, buffer: bytearray) -> None:
    try:
        while True:
            os.readv(fd, [buffer])
    except BlockingIOError:
        return


def _per_packet(act: Callable[[], None], packets: int = BATCH) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) / packets


def _failed(_: str, error: BaseException) -> None:
    raise error


if __name__ == "__main__":
    print(table(rows()))
