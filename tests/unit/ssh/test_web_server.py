"""What the console in a browser does not begin with, and the certificate that it makes."""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.support.golden import ROOT
from tests.support.web_console import console
from tests.support.web_sessions import Echoes
from vmtui.core.errors import Fault, InvalidInput
from vmtui.core.policy import BUILTIN, Person
from vmtui.profile.serving import WebSettings
from vmtui.ssh.journal import Journal
from vmtui.ssh.server import bind
from vmtui.ssh.web import assets, certificate
from vmtui.ssh.web.server import Web
from vmtui.ssh.web.settings import Address


async def refused(folder: Path, settings: WebSettings, host: str = "127.0.0.1") -> Fault:
    """The error with which it does not begin."""
    with pytest.raises(Fault) as fault, bind("127.0.0.1", 0) as listening:
        await Web.open(
            Echoes(), settings, Address(host, 0), listening,
            journal=Journal(None), state=folder, folder=folder, recorded=True,
        )  # fmt: skip
    assert fault.value.hint
    return fault.value


def made(folder: Path, *names: str) -> certificate.Certificate:
    return certificate.made(folder, names or ("127.0.0.1",))


async def test_no_other_host_reaches_it_without_tls(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        assert "has no TLS" in str(await refused(tmp_path, WebSettings(tls=False), host))


async def test_for_other_hosts_a_certificate_is_made(tmp_path: Path) -> None:
    async with console(tmp_path, WebSettings(names=("console.example",)), host="0.0.0.0") as it:
        assert it.web.self_signed
        assert it.web.url(Person(name="anna"), BUILTIN["viewer"]).startswith("https://console.example:")
        assert it.web.fingerprint == fingerprint(tmp_path / "ssh/web/certificate.pem")
        assert (await it.get("/", Host="console.example")).status == 401
        assert (await it.get("/", Host=socket.gethostname().lower())).status == 401
        assert (await it.get("/", Host="192.0.2.1")).status == 421


def test_a_certificate_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    first = made(folder, "127.0.0.1", "console.example")
    assert first.self_signed
    assert made(folder, "console.example", "127.0.0.1").fingerprint == first.fingerprint
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made(folder, "127.0.0.1").fingerprint != first.fingerprint, "for other names it is another"


@pytest.mark.parametrize("part", ["certificate.pem", "key.pem"])
def test_one_that_is_broken_is_made_anew(tmp_path: Path, part: str) -> None:
    first = made(tmp_path)
    (tmp_path / part).write_text("broken")
    assert made(tmp_path).fingerprint != first.fingerprint


def test_one_that_expires_soon_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "LIFETIME", datetime.timedelta(days=29))
    first = made(tmp_path)
    monkeypatch.undo()
    assert made(tmp_path).fingerprint != first.fingerprint


async def test_a_person_brings_their_own(tmp_path: Path) -> None:
    theirs = made(tmp_path / "own")
    settings = WebSettings(tls=True, certificate="own/certificate.pem", key="own/key.pem")
    async with console(tmp_path, settings) as it:
        assert (it.web.fingerprint, it.web.self_signed) == (theirs.fingerprint, False)
        assert not (tmp_path / "ssh").exists()


def test_what_is_wrong_with_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "a")
    made(tmp_path / "b")
    good, key, other = tmp_path / "a/certificate.pem", tmp_path / "a/key.pem", tmp_path / "b/key.pem"

    def why(path: Path, key: Path) -> str:
        with pytest.raises(Fault) as fault:
            certificate.own(path, key)
        return str(fault.value)

    assert why(tmp_path / "none.pem", key) == f"{tmp_path}/none.pem is not a file"
    assert why(key, key) == f"{key} is not a certificate in PEM form"
    assert why(good, other) == f"{other} is not the key of {good}, or has a passphrase"
    assert why(good, good).endswith("can be read by others than its owner")
    key.chmod(0o640)
    assert why(good, key) == f"{key} can be read by others than its owner"
    key.chmod(0o600)
    monkeypatch.setattr(certificate, "LIFETIME", datetime.timedelta(minutes=-1))
    monkeypatch.setattr(certificate, "RENEW", datetime.timedelta(days=-1))
    with pytest.raises(Fault):
        made(tmp_path / "old")
    assert "has expired on" in why(tmp_path / "old/certificate.pem", tmp_path / "old/key.pem")


def test_a_key_with_a_passphrase_asks_nothing(tmp_path: Path) -> None:
    made(tmp_path)
    locked = tmp_path / "locked.pem"
    convert = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run([*convert, "-in", str(tmp_path / "key.pem")], check=True)
    locked.chmod(0o600)
    with pytest.raises(InvalidInput, match="has a passphrase"):
        certificate.own(tmp_path / "certificate.pem", locked)


def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    assert made(tmp_path).context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("package", ["aiohttp", "textual_serve"])
def test_without_the_extra_it_says_what_to_install(package: str) -> None:
    script = f"""
import asyncio, sys
from pathlib import Path
sys.modules[{package!r}] = None
from vmtui.ssh.server import bind
from vmtui.ssh.web.server import Web
from vmtui.profile.serving import WebSettings
from vmtui.ssh.web.settings import Address
try:
    asyncio.run(Web.open(None, WebSettings(), Address("127.0.0.1", 0), bind("127.0.0.1", 0), journal=None,
                         state=Path(), folder=Path(), recorded=True))
except Exception as error:
    print(type(error).__name__, error.hint)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True, cwd=ROOT)
    assert done.stdout == f"MissingCapability {assets.hint()}\n"


def test_none_of_it_is_loaded_before_it_is_asked_for() -> None:
    script = "import sys, vmtui.ssh.web.server; print({'aiohttp', 'textual_serve'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n"


def fingerprint(path: Path) -> str:
    return x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256()).hex(":").upper()
