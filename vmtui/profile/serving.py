"""The table [serve] of serve.toml, as it is written. What its addresses and paths mean is the server's to say."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, field

from vmtui.core.units import Duration, Size

Count = Annotated[int, Meta(ge=1, le=100_000)]


class WebSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The console in a browser. Nothing of it makes it listen: that is what `vmtui serve --web` is for."""

    listen: str = "127.0.0.1:8022"
    names: tuple[str, ...] = ()  # under which browsers know this host, beside its addresses; links have the first
    tls: bool | None = None  # None: where the address is not of the loopback
    certificate: str = ""  # PEM files; without them a certificate is made, and signed by itself
    key: str = ""
    token_lifetime: Duration = field(default_factory=lambda: Duration(60))
    login_lifetime: Duration = field(default_factory=lambda: Duration(12 * 3600))
    sessions: Count = 8  # at once, of one login
    connections: Count = 64  # at once, beside those that belong to a login


class Serve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the console is served. Paths are relative to the file's folder; a count is of what is there at once."""

    listen: tuple[str, ...] = ("127.0.0.1:2222",)
    keys: str = "authorized_keys"
    host_key: str = ""  # "": in the state directory
    host_key_grace: Duration = field(default_factory=lambda: Duration(7 * 86400))
    login_timeout: Duration = field(default_factory=lambda: Duration(15))
    keepalive: Duration = field(default_factory=lambda: Duration(30))
    connections: Count = 256
    connections_per_person: Count = 128
    unauthenticated: Count = 256
    unauthenticated_per_address: Count = 128
    sessions: Count = 200
    sessions_per_person: Count = 100
    sessions_per_connection: Count = 10
    recordings: bool = True  # of sessions on a terminal, where the role has them recorded
    recording_size: Size = field(default_factory=lambda: Size(64 << 20))
    web: WebSettings = field(default_factory=WebSettings)
