"""What only this backend knows: the sub-table [vm.NAME.kvm]."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder of the host that the guest mounts: `mount -t virtiofs TAG FOLDER`."""

    tag: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,36}$")]  # VIRTIO 5.11.4: 36 bytes
    path: Annotated[str, Meta(pattern=r"^/")]
    read_only: bool = False


class KvmOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`vhost`: whether the kernel carries its packets; `auto`: where it can. `prefault`: take all memory at once."""

    vhost: Literal["auto", "on", "off"] = "auto"
    console: Literal["hvc0", "ttyS0"] = "hvc0"
    balloon: bool = True
    hugepages: bool = False
    prefault: bool = False
    shares: tuple[Share, ...] = ()
