"""What is negotiated about packets (VIRTIO 5.1.3), and what that makes of the TAP."""

from __future__ import annotations

from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC

# include/uapi/linux/virtio_net.h, as bits. HOST_*: what the guest may leave to us; GUEST_*: what we may leave to it
CSUM, GUEST_CSUM, MTU, MAC = 1 << 0, 1 << 1, 1 << 3, 1 << 5
GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6 = 1 << 7, 1 << 8, 1 << 11, 1 << 12
MRG_RXBUF, STATUS = 1 << 15, 1 << 16
STATUS_LINK_UP = 1
# Without a control queue: receive filters are the bridge's work, and all else of it is for what is not offered here.
OFFERED = (
    CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6 | MAC | MTU | MRG_RXBUF | STATUS
    | RING_INDIRECT_DESC | RING_EVENT_IDX
)  # fmt: skip

# include/uapi/linux/if_tun.h, TUNSETOFFLOAD: the packets that the TAP may hand us as they are
_TUN_CSUM, _TUN_TSO4, _TUN_TSO6 = 0x01, 0x02, 0x04

HEADER_BYTES = 12  # struct virtio_net_hdr_v1, 5.1.6: before each packet, on the TAP as well
NUM_BUFFERS = 10  # its last field, u16
MIN_FRAME_BYTES = 14  # include/uapi/linux/if_ether.h, ETH_HLEN
# a segmentation offload makes an IP packet of 64 KiB at most, of IPv6 beside its header; Ethernet, and a VLAN's tag
MAX_PACKET_BYTES = HEADER_BYTES + MIN_FRAME_BYTES + 4 + 40 + 0xFFFF


def tap_offloads(accepted: int) -> int:
    """The argument of TUNSETOFFLOAD for a driver that accepted these features (5.1.3.1: TSO stands on CSUM)."""
    if not accepted & GUEST_CSUM:
        return 0
    tso4 = _TUN_TSO4 if accepted & GUEST_TSO4 else 0
    tso6 = _TUN_TSO6 if accepted & GUEST_TSO6 else 0
    return _TUN_CSUM | tso4 | tso6
