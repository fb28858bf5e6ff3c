"""The user that the process of one VM runs as."""

from __future__ import annotations

# Numbers that nobody else hands out: above those of systemd's and our own containers, below 2^31.
FIRST_UID = 0x7FFF_0000
UIDS = 0xFFFE


def uid_of(token: str) -> int:
    """The user that one VM runs as, the same each time, and hardly ever another's."""
    return FIRST_UID + int(token, 16) % UIDS
