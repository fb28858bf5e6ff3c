"""What only this backend knows: the sub-table [vm.NAME.qemu]."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class QemuOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auto` takes microvm and KVM where they do."""

    machine: Literal["auto", "microvm", "q35"] = "auto"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    cpu: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+(,[A-Za-z0-9._+=-]+)*$")] | None = None  # as for qemu's -cpu
