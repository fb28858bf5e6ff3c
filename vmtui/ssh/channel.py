"""A channel of asyncssh's that keeps nothing that a client sends for no purpose."""

from __future__ import annotations

from asyncssh.channel import SSHServerChannel
from asyncssh.packet import SSHPacket

WINDOW_BYTES = 256 << 10
LONGEST_VALUE = 256
MOST_VARIABLES = 32
PLAIN = frozenset({"LANG", "COLORTERM", "NO_COLOR"})


def passes(name: str, value: str) -> bool:
    """Whether a variable of the client's reaches its session: only those that speak of language and colours."""
    return (name in PLAIN or name.startswith("LC_")) and len(value) <= LONGEST_VALUE and value.isprintable()


class Channel(SSHServerChannel[bytes]):
    """asyncssh would keep each variable that a client names."""

    def _process_env_request(self, packet: SSHPacket) -> bool:
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        try:
            kept = passes(name.decode("ascii"), value.decode("utf-8"))
        except UnicodeDecodeError:
            return False
        if not kept or len(name) > LONGEST_VALUE or len(self._env) >= MOST_VARIABLES:
            return False
        self._env[name] = value
        return True

    def variables(self) -> dict[str, str]:
        """What has passed."""
        return {name.decode(): value.decode() for name, value in self._env.items()}
