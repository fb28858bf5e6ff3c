"""What only this backend knows: the sub-table [sandbox.NAME.wasm]."""

from __future__ import annotations

import msgspec
from msgspec import field

from vmtui.core.units import Size


class WasmOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    log_max_size: Size = field(default_factory=lambda: Size(10 << 20))  # of the log, all rotated files together
