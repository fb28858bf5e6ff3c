"""Who is let in: by key and by certificate, and with which words the others are not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fixed_keys import fixed_key
from vmtui.core.policy import BUILTIN
from vmtui.ssh import keys
from vmtui.ssh.gate import Gate, Login, Verdict

MINE, OTHER, AUTHORITY = map(fixed_key, range(3))
NOW = time.time()
TEN_YEARS_S = 10 * 365 * 86400


def text(key: asyncssh.SSHKey) -> str:
    return key.export_public_key("openssh").decode().strip()


def judged(line: str, blob: bytes, *, name: str = "anna", address: str = "192.0.2.7") -> Verdict:
    gate = Gate(keys.parse(line, Path("keys"), BUILTIN), BUILTIN)
    return gate.judge(Login(blob, name, address, 40022))


def certificate(key: asyncssh.SSHKey = MINE, by: asyncssh.SSHKey = AUTHORITY, **words: Any) -> bytes:
    words = {"key_id": "id", "principals": ["anna"], **words}
    return by.generate_user_certificate(key, **words).public_data


def test_a_known_key_is_a_person_with_a_role_whatever_the_login_is() -> None:
    verdict = judged(f'role="operator",name="anna" {text(MINE)}', MINE.public_data, name="root")
    assert verdict.grant is not None
    person = verdict.grant.person
    assert (person.name, person.origin) == ("anna", "192.0.2.7 port 40022")
    assert person.key == MINE.get_fingerprint("sha256")
    assert verdict.grant.role == BUILTIN["operator"]
    assert (verdict.grant.pty, verdict.grant.forwarding, verdict.grant.command) == (True, True, None)


@pytest.mark.parametrize(
    ("line", "known", "why"),
    [
        (f'role="admin" {text(OTHER)} bert', False, "is not known"),
        (f'cert-authority,role="admin" {text(MINE)}', False, "is not known"),
        (f"{text(MINE)} anna", True, "anna (line 1 of authorized_keys) has no role"),
        (f'role="admin",from="10.0.0.0/8" {text(MINE)} anna', True, "may not come from 192.0.2.7"),
        (f'role="admin",expiry-time="20200101Z" {text(MINE)} anna', True, "expired at 20"),
    ],
)
def test_who_is_not_let_in_is_told_why_only_if_known(line: str, known: bool, why: str) -> None:
    verdict = judged(line, MINE.public_data)
    assert verdict.grant is None
    assert (verdict.key is not None) is known
    assert why in verdict.why


def test_the_first_line_that_fits_counts() -> None:
    lines = f'role="admin",from="10.0.0.0/8" {text(MINE)} anna\nrole="viewer" {text(MINE)} anna\n'
    for address, role in [("10.1.2.3", "admin"), ("192.0.2.7", "viewer")]:
        verdict = judged(lines, MINE.public_data, address=address)
        assert verdict.grant is not None
        assert verdict.grant.role.name == role


def test_a_certificate_is_who_its_principal_is() -> None:
    line = f'cert-authority,role="operator" {text(AUTHORITY)}'
    verdict = judged(line, certificate())
    assert verdict.grant is not None
    assert verdict.grant.person.name == "anna"
    assert verdict.grant.person.key == MINE.get_fingerprint("sha256")
    assert verdict.key is not None
    assert verdict.key.public_data == MINE.public_data
    assert "not the name of the login, 'bert'" in judged(line, certificate(), name="bert").why
    assert "no principals" in judged(line, certificate(principals=[])).why


def test_the_principals_of_the_line_count_more_than_the_login() -> None:
    line = f'cert-authority,principals="staff,anna",role="viewer" {text(AUTHORITY)}'
    verdict = judged(line, certificate(principals=["guests", "staff"]), name="root")
    assert verdict.grant is not None
    assert verdict.grant.person.name == "staff"
    assert "guests, and staff, anna is wanted" in judged(line, certificate(principals=["guests"])).why


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"valid_before": NOW - 60, "valid_after": NOW - 120}, "expired"),
        ({"valid_after": NOW + TEN_YEARS_S, "valid_before": NOW + 2 * TEN_YEARS_S}, "not yet valid"),
        ({"source_address": ["10.0.0.0/8"]}, "not valid from 192.0.2.7"),
        ({"principals": ["a b"]}, "is no name"),
        ({"by": OTHER}, "of the certificate is not known"),
        ({"force_command": "ls"}, "forces another command"),
        ({"key": asyncssh.generate_private_key("ssh-rsa", key_size=1024)}, "1024 bits"),
    ],
)
def test_certificates_that_are_not_enough(words: dict[str, Any], why: str) -> None:
    principals = 'principals="a b",' if words.get("principals") else ""
    line = f'cert-authority,{principals}command="ps",role="admin" {text(AUTHORITY)}'
    verdict = judged(line, certificate(**words))
    assert verdict.grant is None
    assert why in verdict.why


def test_a_certificate_for_hosts_lets_nobody_in() -> None:
    blob = AUTHORITY.generate_host_certificate(MINE, "id", principals=["anna"]).public_data
    verdict = judged(f'cert-authority,role="admin" {text(AUTHORITY)}', blob)
    assert verdict.grant is None
    assert "it is one for hosts" in verdict.why


def test_a_certificate_permits_no_more_than_its_line_and_no_more_than_itself() -> None:
    blob = certificate(permit_pty=False, permit_port_forwarding=True, force_command="ls --json")
    verdict = judged(f'cert-authority,no-port-forwarding,role="admin" {text(AUTHORITY)}', blob)
    assert verdict.grant is not None
    assert (verdict.grant.pty, verdict.grant.forwarding, verdict.grant.command) == (False, False, "ls --json")


def test_a_changed_certificate_is_none() -> None:
    blob = bytearray(certificate())
    blob[-1] ^= 1
    verdict = judged(f'cert-authority,role="admin" {text(AUTHORITY)}', bytes(blob))
    assert (verdict.key, verdict.grant) == (None, None)


@given(st.one_of(st.binary(max_size=200), st.integers(0, 400).map(lambda size: certificate()[:size])))
def test_any_bytes_are_judged(blob: bytes) -> None:
    lines = f'cert-authority,role="admin" {text(AUTHORITY)}\nrole="admin" {text(MINE)} anna\n'
    verdict = judged(lines, blob)
    assert verdict.grant is None
    assert verdict.why
