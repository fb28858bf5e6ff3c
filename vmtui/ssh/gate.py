"""Who is let in, and as what: the one decision over keys, certificates and roles. Pure but for the clock.

It is asked by the bytes of a key that somebody says to have. Whether they have it is shown by a signature afterwards,
and only who has shown it is told why a key that is known is not enough.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import asyncssh
from asyncssh.public_key import CERT_TYPE_USER, SSHOpenSSHCertificate, decode_ssh_certificate, decode_ssh_public_key

from vmtui.core.policy import Person, Role
from vmtui.ssh import key_options
from vmtui.ssh.keys import Keys, Line, weakness

CERTIFICATE = b"-cert-v01@openssh.com"
LONGEST_BLOB = 16 << 10


@dataclass(frozen=True, slots=True)
class Grant:
    """What one login may do. `command` replaces whatever is asked for; `opens` restricts where to one may connect."""

    person: Person
    role: Role
    line: Line
    command: str | None
    pty: bool
    forwarding: bool
    opens: tuple[str, ...]

    @property
    def comparable(self) -> tuple[object, ...]:
        """All of it but where it is written: what must be the same for a login to go on."""
        return self.person, self.role, self.command, self.pty, self.forwarding, self.opens


@dataclass(frozen=True, slots=True)
class Verdict:
    """`key` must have made the signature; None if nobody of that key is known. Without a grant, `why` says why not."""

    key: asyncssh.SSHKey | None
    grant: Grant | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """What somebody says who comes: `blob` is the key or certificate, `name` what they call themselves."""

    blob: bytes
    name: str
    address: str
    port: int

    @property
    def origin(self) -> str:
        return f"{self.address} port {self.port}"


class Gate:
    """Decides by one set of files; another set is another gate."""

    def __init__(self, keys: Keys, roles: Mapping[str, Role], *, clock: Callable[[], float] = time.time) -> None:
        self.keys = keys
        self.roles = roles
        self._clock = clock

    def judge(self, login: Login) -> Verdict:
        """Never raises."""
        if len(login.blob) > LONGEST_BLOB:
            return Verdict(None, why="a key that is far too long")
        try:
            if CERTIFICATE in login.blob[:100]:
                return self._certificate(login, decode_ssh_certificate(login.blob))
            return self._key(login, decode_ssh_public_key(login.blob))
        except (asyncssh.KeyImportError, ValueError) as error:
            return Verdict(None, why=f"a key that cannot be used: {str(error)[:100].lower()}")

    def _key(self, login: Login, key: asyncssh.SSHKey) -> Verdict:
        found = self.keys.of(key, authority=False)
        if not found:
            return Verdict(None, why=f"key {_fingerprint(key)} is not known")
        return self._by_lines(login, key, found, None)

    def _certificate(self, login: Login, cert: object) -> Verdict:
        if not isinstance(cert, SSHOpenSSHCertificate):
            return Verdict(None, why="a certificate of a kind that is not known")
        authority = _fingerprint(cert.signing_key)
        found = self.keys.of(cert.signing_key, authority=True)
        if not found:
            return Verdict(None, why=f"the authority {authority} of the certificate is not known")
        key = cert.key
        if (weak := weakness(key)) is not None:
            return Verdict(key, why=f"certificate of {authority}: {weak}")
        try:
            cert.validate(CERT_TYPE_USER, None)
        except ValueError as error:
            why = str(error).lower().replace("invalid certificate type", "it is one for hosts")
            return Verdict(key, why=f"certificate of {authority}: {why.removeprefix('certificate ')}")
        if not _from_networks(cert.options.get("source-address"), login.address):
            return Verdict(key, why=f"certificate of {authority}: not valid from {login.address}")
        return self._by_lines(login, key, found, cert)

    def _by_lines(
        self, login: Login, key: asyncssh.SSHKey, lines: Sequence[Line], cert: SSHOpenSSHCertificate | None
    ) -> Verdict:
        """By the first line that fits; if none does, why the last of them did not."""
        why = ""
        for line in lines:
            found = self._by_line(login, key, line, cert)
            if isinstance(found, Grant):
                key.set_touch_required(
                    line.options.touch or not (cert is None or bool(cert.options.get("no-touch-required")))
                )
                return Verdict(key, grant=found)
            why = found
        return Verdict(key, why=why)

    def _by_line(
        self, login: Login, key: asyncssh.SSHKey, line: Line, cert: SSHOpenSSHCertificate | None
    ) -> Grant | str:
        options = line.options
        about = f"{line.name or 'a certificate'} (line {line.number} of authorized_keys)"
        if not key_options.comes_from(options.sources, login.address):
            return f"{about} may not come from {login.address}"
        if options.expires_at is not None and self._clock() >= options.expires_at:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(options.expires_at))
            return f"the key of {about} expired at {when}"
        name = line.name
        if cert is not None:
            principal = _principal(cert, options.principals, login.name)
            if principal is None:
                return _no_principal(cert, options.principals, login.name, about)
            name = name or principal
        if not key_options.NAME.fullmatch(name):
            return f"the principal {name[:64]!r} of the certificate is no name: {key_options.NAME_RULE}"
        role = self.roles.get(options.role)
        if role is None:
            return f"{name} (line {line.number} of authorized_keys) has no role"
        command, permissions = options.command, {} if cert is None else cert.options
        if (forced := permissions.get("force-command")) is not None:
            if command is not None and command != forced:
                return f"the certificate of {name} forces another command than its line"
            command = str(forced)
        return Grant(
            person=Person(name=name, key=_fingerprint(key), origin=login.origin),
            role=role,
            line=line,
            command=command,
            pty=options.pty and (cert is None or bool(permissions.get("permit-pty"))),
            forwarding=options.forwarding and (cert is None or bool(permissions.get("permit-port-forwarding"))),
            opens=options.opens,
        )


def _principal(cert: SSHOpenSSHCertificate, wanted: Sequence[str], login: str) -> str | None:
    """The one of the certificate that counts: one that the line names, else the name of the login, as in sshd."""
    return next((name for name in cert.principals if (name in wanted if wanted else name == login)), None)


def _no_principal(cert: SSHOpenSSHCertificate, wanted: Sequence[str], login: str, about: str) -> str:
    has = ", ".join(name[:64] for name in list(cert.principals)[:8]) or "no principals"
    if wanted:
        return f"{about}: the certificate has {has}, and {', '.join(wanted)} is wanted"
    return f"{about}: the certificate has {has}, and not the name of the login, {login[:64]!r}"


def _from_networks(networks: object, address: str) -> bool:
    if not networks:
        return True
    here = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(here, ipaddress.IPv6Address) and here.ipv4_mapped:
        here = here.ipv4_mapped
    return isinstance(networks, Sequence) and any(here in network for network in networks)


def _fingerprint(key: asyncssh.SSHKey) -> str:
    return key.get_fingerprint("sha256")
