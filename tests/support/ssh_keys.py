"""Keys of people who log in: made by ssh-keygen, and written anew for the clients that have a form of their own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TOOL_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Key:
    """A private key in OpenSSH's form, with its public half beside it."""

    path: Path

    @classmethod
    def make(cls, folder: Path, name: str, kind: str = "ed25519", *words: str) -> Key:
        path = folder / f"{name}_{kind}"
        tool("ssh-keygen", "-q", "-t", kind, *words, "-N", "", "-C", name, "-f", str(path))
        return cls(path)

    @cached_property
    def public(self) -> str:
        """`TYPE BASE64`, as in authorized_keys."""
        return " ".join(self.path.with_suffix(".pub").read_text().split()[:2])

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.path.with_suffix(".pub"))

    @cached_property
    def dropbear(self) -> Path:
        path = self.path.with_suffix(".dropbear")
        tool("dropbearconvert", "openssh", "dropbear", str(self.path), str(path))
        return path

    @cached_property
    def putty(self) -> Path:
        path = self.path.with_suffix(".ppk")
        tool("puttygen", str(self.path), "-O", "private", "-o", str(path))
        return path

    def certify(self, person: Key, *words: str) -> Path:
        """Sign the key of a person as an authority; `words` are ssh-keygen's (-I, -n, -V, -h ...). The certificate."""
        public = person.path.with_suffix(".pub")
        tool("ssh-keygen", "-q", "-s", str(self.path), *words, str(public))
        return public.with_name(f"{person.path.name}-cert.pub")


def fingerprint(public: Path) -> str:
    """`SHA256:…`, as ssh-keygen has it."""
    return tool("ssh-keygen", "-l", "-f", str(public)).split()[1]


def tool(*argv: str) -> str:
    """Its stdout. Raises AssertionError with what it said."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{argv} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
