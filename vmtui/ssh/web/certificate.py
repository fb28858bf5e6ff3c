"""The certificate of the console in a browser: a person's own, or one that is made at the first start.

The one that is made is signed by itself: browsers warn of it, and its fingerprint, which the server prints, is what to
compare with theirs.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import ssl
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vmtui.core.errors import Conflict, Fault, InvalidInput
from vmtui.host.files import in_words, remedy, write_atomic

LIFETIME = datetime.timedelta(days=397)
RENEW = datetime.timedelta(days=30)  # before it expires


class Certificate(msgspec.Struct, frozen=True):
    """What the server shows. `fingerprint` is as browsers write it: SHA-256, in pairs of hexadecimal digits."""

    context: ssl.SSLContext
    fingerprint: str
    self_signed: bool


def own(certificate: Path, key: Path) -> Certificate:
    """A person's own files. Raises Fault: not readable, not PEM, expired, not of each other, a key that others read."""
    return _loaded(certificate, key, self_signed=False)


def made(folder: Path, names: Iterable[str]) -> Certificate:
    """The one in `folder`, made there if there is none for these names and addresses, or not for long. Raises Fault."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    wanted = tuple(dict.fromkeys(names))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two that start at once one makes it
            if not _serves(certificate, key, wanted):
                _make(certificate, key, wanted)
        finally:
            os.close(lock)
    except OSError as error:
        raise Fault(f"cannot keep a certificate in {folder}: {in_words(error)}", hint=remedy(error, folder)) from None
    return _loaded(certificate, key, self_signed=True)


def _serves(certificate: Path, key: Path, names: tuple[str, ...]) -> bool:
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        serialization.load_pem_private_key(key.read_bytes(), None)
        told = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    late = datetime.datetime.now(datetime.UTC) + RENEW > found.not_valid_after_utc
    return not late and set(told) == {_general(name) for name in names}


def _make(certificate: Path, key: Path, names: tuple[str, ...]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vmtui")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    write_atomic(
        key,
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    write_atomic(certificate, signed.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _loaded(certificate: Path, key: Path, *, self_signed: bool) -> Certificate:
    for path in (certificate, key):
        if not path.is_file():
            raise InvalidInput(f"{path} is not a file", hint=f"ls -l {path}")
    try:
        if key.stat().st_mode & 0o077:
            raise Conflict(f"{key} can be read by others than its owner", hint=f"chmod 600 {key}")
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except OSError as error:
        raise Fault(f"cannot read {error.filename}: {in_words(error)}", hint=remedy(error)) from None
    except ValueError:
        raise InvalidInput(f"{certificate} is not a certificate in PEM form") from None
    if datetime.datetime.now(datetime.UTC) > found.not_valid_after_utc:
        until = found.not_valid_after_utc.date().isoformat()
        raise InvalidInput(
            f"{certificate} has expired on {until}", hint=f"openssl x509 -noout -dates -in {certificate}"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # no question on the terminal
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise InvalidInput(
            f"{key} is not the key of {certificate}, or has a passphrase", hint=f"openssl pkey -in {key} -noout"
        ) from None
    return Certificate(context, found.fingerprint(hashes.SHA256()).hex(":").upper(), self_signed)
