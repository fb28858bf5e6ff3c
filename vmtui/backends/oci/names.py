"""The files of /etc that depend on where a container is plugged in: hostname, hosts, resolv.conf."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmtui.core.resource import Port

LOCAL = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
FILES = ("hostname", "hosts", "resolv.conf")


def write(directory: Path, hostname: str, ports: Sequence[Port]) -> None:
    """Write all three. In place: a running container has these very files mounted. Raises OSError."""
    directory.mkdir(mode=0o755, exist_ok=True)
    addresses = [port.address for port in ports if port.address] or ["127.0.1.1"]
    servers = dict.fromkeys(server for port in ports for server in port.dns)
    domains = dict.fromkeys(port.search for port in ports if port.search)
    search = f"search {' '.join(domains)}\n" if domains else ""
    contents = {
        "hostname": f"{hostname}\n",
        "hosts": LOCAL + "".join(f"{address}\t{hostname}\n" for address in addresses),
        "resolv.conf": search + "".join(f"nameserver {server}\n" for server in servers),
    }
    for name in FILES:
        path = directory / name
        path.write_text(contents[name])
        path.chmod(0o644)
