"""The few switches under /proc/sys/net, which are those of our network namespace."""

from __future__ import annotations

from pathlib import Path

from vmtui.core.errors import MissingCapability
from vmtui.host import trace

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def forwards() -> bool:
    """Whether the host passes IPv4 packets on."""
    try:
        return FORWARDING.read_text().strip() != "0"
    except OSError:
        return False


def set_forwarding(on: bool) -> None:
    """Raises MissingCapability."""
    _write(FORWARDING, "1" if on else "0")


def _bridge_switches(bridge: str) -> dict[Path, str]:
    """route_localnet lets 127.0.0.1 of this host reach published ports; the guard chain keeps members from it.

    IPv6 stays between members: without it on the bridge, nothing that they send can configure the host.
    """
    return {
        Path(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet"): "1",
        Path(f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"): "1",
    }


def bridge_is_set(bridge: str) -> bool:
    switches = _bridge_switches(bridge).items()
    return all(not path.exists() or path.read_text().strip() == value for path, value in switches)


def set_bridge(bridge: str) -> None:
    """Raises MissingCapability."""
    for path, value in _bridge_switches(bridge).items():
        if path.exists():  # a kernel without IPv6 has half of them
            _write(path, value)


def set_port(interface: str) -> None:
    """The host's end of a port is no host of its own: without IPv6 it does not speak up. Raises MissingCapability."""
    path = Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
    if path.exists():
        _write(path, "1")


def _write(path: Path, value: str) -> None:
    try:
        with trace.write(path, value):
            path.write_text(value)
    except OSError as error:
        hint = "run vmtui on the host itself, as root, not in a container"
        raise MissingCapability(f"cannot set {path} to {value}: {error.strerror}", hint=hint) from None
