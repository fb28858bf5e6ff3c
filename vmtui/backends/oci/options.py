"""The sub-table `[container.NAME.oci]`."""

from __future__ import annotations

from typing import Literal

import msgspec


class OciOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auto` takes what fits the host; anything else is taken or refused, never replaced."""

    runtime: Literal["auto", "runc", "crun"] = "auto"
    userns: Literal["auto", "private", "host"] = "auto"  # private: refuse hosts that cannot map ids
