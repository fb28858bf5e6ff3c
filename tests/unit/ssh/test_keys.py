"""authorized_keys: every line is understood as sshd would, or refused with its number."""

from __future__ import annotations

import base64
import struct
import time
from pathlib import Path

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fixed_keys import fixed_key
from vmtui.ssh import key_options, keys
from vmtui.ssh.keys import KeysInvalid

ROLES = ("viewer", "operator", "admin")
KEY = fixed_key(0).export_public_key("openssh").decode().strip()
PATH = Path("/etc/vmtui/authorized_keys")


def one(line: str) -> keys.Line:
    (found,) = keys.parse(f"# people\n\n{line}\n", PATH, ROLES).lines
    return found


def refused(line: str) -> KeysInvalid:
    with pytest.raises(KeysInvalid) as caught:
        keys.parse(f"{KEY} first\n{line}\n", PATH, ROLES)
    assert caught.value.where == f"{PATH}:2"
    return caught.value


def test_a_line_has_a_key_a_name_and_a_role() -> None:
    line = one(f'role="operator",name="anna" {KEY} anna at her desk')
    assert (line.number, line.name, line.options.role) == (3, "anna", "operator")
    assert line.fingerprint.startswith("SHA256:")
    assert line.options.pty
    assert line.options.forwarding


def test_the_comment_is_the_name_of_who_is_not_named() -> None:
    assert one(f'role="viewer" {KEY} bert@desk').name == "bert@desk"


def test_the_environment_says_it_too_for_tools_that_know_no_other_options() -> None:
    line = one(f'environment="VMTUI_ROLE=admin",environment="VMTUI_NAME=cleo" {KEY}')
    assert (line.name, line.options.role) == ("cleo", "admin")


def test_a_key_without_options_has_no_role() -> None:
    assert one(f"{KEY} anna").options.role == ""


@pytest.mark.parametrize(
    ("words", "pty", "forwarding"),
    [
        ("restrict", False, False),
        ("restrict,pty", True, False),
        ("pty,restrict", False, False),
        ("no-pty", False, True),
        ("no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-user-rc", True, False),
        ("RESTRICT,Port-Forwarding", False, True),
    ],
)
def test_what_is_permitted_is_read_in_its_order(words: str, pty: bool, forwarding: bool) -> None:
    options = one(f"{words} {KEY} anna").options
    assert (options.pty, options.forwarding) == (pty, forwarding)


def test_quoted_values_have_commas_blanks_and_quotes() -> None:
    options = one(rf'command="console \"vm/a b\", x",role="viewer" {KEY} anna').options
    assert options.command == 'console "vm/a b", x'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ssh-ed25519 AAAA anna", "cannot be read"),
        ("not a key at all", "there is no public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        (f'role="operatr" {KEY} anna', "no role 'operatr'"),
        (f"frobnicate {KEY} anna", "there is no option frobnicate"),
        (f'frobnicate="1" {KEY} anna', "there is no option frobnicate="),
        (f'command="echo {KEY} anna', "a quote is not closed"),
        (f'command="echo \'x" {KEY} anna', "no closing quotation"),
        (f"command=ls {KEY} anna", "a value is in quotes"),
        (f'role="viewer",,no-pty {KEY} anna', "is not an option"),
        (f'from="*.example.org" {KEY} anna', "names are not looked up"),
        (f'from="192.0.2.0/33" {KEY} anna', "from="),
        (f'expiry-time="tomorrow" {KEY} anna', "is not a time"),
        (f'expiry-time="20261340" {KEY} anna', "is not a time"),
        (f'environment="PATH=/tmp" {KEY} anna', "only VMTUI_ROLE"),
        (f'permitopen="web" {KEY} anna', "is not HOST:PORT"),
        (f'tunnel="0" {KEY} anna', "never possible here"),
        (f'principals="anna" {KEY} anna', "cert-authority"),
        (f'name="../anna" {KEY}', "a name is"),
        (f'role="viewer" {KEY}', "nobody's name"),
        (f'role="viewer" {KEY} anna of the desk', "is no name"),
        (f'role="viewer",role="admin" {KEY} anna', "two roles"),
        (f"verify-required {KEY} anna", "verify-required"),
        ('role="viewer"', "there is no public key"),
    ],
)
def test_a_line_that_is_wrong_is_named(line: str, says: str) -> None:
    fault = refused(line)
    assert says in str(fault)
    assert fault.hint or ";" in str(fault)


def test_a_word_that_is_nearly_right_is_suggested() -> None:
    assert "operator" in refused(f'role="operatr" {KEY} anna').hint


def test_weak_keys_are_refused() -> None:
    short = asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_public_key("openssh").decode().strip()
    assert "1024 bits" in str(refused(f'role="viewer" {short} anna'))
    numbers = b"".join(struct.pack(">I", 3) + b"\x01\x00\x01" for _ in range(4))
    dsa = base64.b64encode(struct.pack(">I", 7) + b"ssh-dss" + numbers).decode()
    assert "DSA" in str(refused(f'role="viewer" ssh-dss {dsa} anna')) or "cannot be read" in str(
        refused(f"ssh-dss {dsa} a")
    )
    assert keys.weakness(asyncssh.generate_private_key("ssh-rsa", key_size=2048)) is None


def test_an_expiry_is_local_time_unless_it_says_utc() -> None:
    assert one(f'expiry-time="20270101Z" {KEY} anna').options.expires_at == 1_798_761_600.0
    local = time.mktime((2027, 1, 1, 12, 30, 0, 0, 0, -1))
    assert one(f'expiry-time="202701011230" {KEY} anna').options.expires_at == local


@pytest.mark.parametrize(
    ("pattern", "address", "fits"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.70", False),
        ("192.0.2.0/24", "192.0.2.70", True),
        ("192.0.2.0/24", "::ffff:192.0.2.70", True),
        ("192.0.2.*,!192.0.2.66", "192.0.2.66", False),
        ("!192.0.2.66,192.0.2.*", "192.0.2.66", False),
        ("192.0.2.*,!192.0.2.66", "192.0.2.67", True),
        ("!192.0.2.66", "192.0.2.67", False),
        ("2001:db8::/32", "2001:db8::7", True),
        ("2001:DB8::7", "2001:db8::7", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("192.0.2.0/24", "2001:db8::7", False),
        ("*", "a text that is no address", False),
    ],
)
def test_from_has_addresses_networks_and_exceptions(pattern: str, address: str, fits: bool) -> None:
    assert key_options.comes_from(one(f'from="{pattern}" {KEY} anna').options.sources, address) is fits


def test_two_lists_of_from_must_both_fit() -> None:
    sources = one(f'from="192.0.2.*",from="*.7" {KEY} anna').options.sources
    assert key_options.comes_from(sources, "192.0.2.7")
    assert not key_options.comes_from(sources, "192.0.2.8")


def test_others_must_not_be_able_to_write_the_file_or_replace_it(tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    path.write_text(f'role="admin" {KEY} anna\n')
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    assert keys.load(path, ROLES).lines[0].name == "anna"
    path.chmod(0o664)
    with pytest.raises(KeysInvalid, match="mode 0664") as caught:
        keys.load(path, ROLES)
    assert caught.value.hint == f"chmod go-w {path}"
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(KeysInvalid, match="mode 0777"):
        keys.load(path, ROLES)


def test_without_a_file_one_is_told_how_to_begin_one(tmp_path: Path) -> None:
    with pytest.raises(KeysInvalid, match="no such file") as caught:
        keys.load(tmp_path / "authorized_keys", ROLES)
    assert 'role=\\"admin\\"' in caught.value.hint


LINES = st.one_of(
    st.text(),
    st.builds(
        lambda parts, rest: ",".join(parts) + rest,
        st.lists(st.sampled_from(['role="viewer"', "restrict", 'from="10.0.0.0/8"', 'command="ls"', '"', "\\", "="])),
        st.sampled_from([f" {KEY} anna", f" {KEY}", " ", "", KEY]),
    ),
)


@given(st.lists(LINES, max_size=5))
def test_any_text_is_keys_or_is_refused_with_a_line(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        found = keys.parse(text, PATH, ROLES)
    except KeysInvalid as error:
        fault = error
    else:
        assert len(found.lines) <= len(text.splitlines())
        assert all(
            line.options.role in ("", *ROLES) and line.name for line in found.lines if not line.options.authority
        )
        return
    assert fault.where.startswith(f"{PATH}:")
    assert "\n" not in fault.message
    assert 1 <= int(fault.where.rpartition(":")[2]) <= len(text.splitlines())
