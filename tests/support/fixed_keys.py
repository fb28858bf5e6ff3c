"""Keys that are the same in each process: texts of tests' parameters name tests, which parallel runs must agree on."""

from __future__ import annotations

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

SEED_BYTES = 32  # RFC 8032, 5.1.5


def fixed_key(number: int) -> asyncssh.SSHKey:
    """The ed25519 key whose seed is that byte over and over."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * SEED_BYTES)
    return asyncssh.import_private_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
