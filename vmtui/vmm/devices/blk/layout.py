"""What VIRTIO 5.2 lays down for block devices: type, features, configuration space, requests."""

from __future__ import annotations

import struct
from typing import NamedTuple

TYPE_BLOCK = 2  # 5.2.1
SECTOR = 512  # 5.2.4: the unit of all positions, whatever the block size

# 5.2.3
SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH = 1 << 1, 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 9
TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES = 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14

# 5.2.6: struct virtio_blk_req and its types and statuses
HEADER = struct.Struct("<IIQ")  # type, reserved, sector
IN, OUT, FLUSH_REQUEST, GET_ID, DISCARD_REQUEST, WRITE_ZEROES_REQUEST = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
ID_BYTES = 20
SEGMENT = struct.Struct("<QII")  # struct virtio_blk_discard_write_zeroes: sector, num_sectors, flags
SEGMENT_UNMAP = 1

CONFIG = struct.Struct("<QIIHBBIBBHIBxHIIIIIB3x")  # 5.2.4, struct virtio_blk_config
WRITEBACK_AT = 32  # the only field that the driver writes
NUM_QUEUES_AT = 34


class BlkConfig(NamedTuple):
    """The configuration space. Sectors are of 512 bytes; a field without its feature is 0."""

    capacity_sectors: int
    size_max: int = 0
    seg_max: int = 0
    cylinders: int = 0
    heads: int = 0
    sectors: int = 0
    blk_size: int = SECTOR
    physical_block_exp: int = 0  # the physical block is blk_size << this
    alignment_offset: int = 0
    min_io_blocks: int = 0
    opt_io_blocks: int = 0
    writeback: int = 1
    num_queues: int = 1
    max_discard_sectors: int = 0
    max_discard_seg: int = 0
    discard_sector_alignment: int = 0
    max_write_zeroes_sectors: int = 0
    max_write_zeroes_seg: int = 0
    write_zeroes_may_unmap: int = 0

    def packed(self) -> bytes:
        return CONFIG.pack(*self)
