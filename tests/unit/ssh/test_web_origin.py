"""By which name a browser called, and whose page made it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.core.errors import InvalidInput
from vmtui.ssh.web.origin import Names, same
from vmtui.ssh.web.settings import Address

LOCAL = "192.0.2.5"


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8022", True),
        ("127.0.0.1", True),
        ("127.9.9.9:1", True),
        ("localhost:9000", True),
        ("LOCALHOST", True),
        ("[::1]:8022", True),
        ("[::ffff:127.0.0.1]", True),
        ("192.0.2.5:8022", True),
        ("console.example", True),
        ("Console.Example:443", True),
        ("192.0.2.6:8022", False),
        ("evil.example:8022", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("console.example.", False),
        ("[localhost]", False),
        ("::1", False),
        ("127.0.0.1:8022:1", False),
        ("127.0.0.1:x", False),
        ("anna@localhost", False),
        ("localhost/", False),
        ("localhost\n", False),
        ("2130706433", False),
        ("0x7f.1", False),
        ("", False),
    ],
)
def test_only_names_of_this_host_are_known(host: str, known: bool) -> None:
    assert Names(["console.example"]).knows(host, LOCAL) is known


@given(st.text())
def test_no_host_header_breaks_it(host: str) -> None:
    if Names().knows(host, LOCAL):
        assert not set(host) & set("\"'<>/ ;\n")  # it goes into the page and its policy


@pytest.mark.parametrize(
    ("origin", "host", "tls", "is_same"),
    [
        ("http://127.0.0.1:8022", "127.0.0.1:8022", False, True),
        ("https://Console.example", "console.example", True, True),
        ("http://[::1]:8022", "[::1]:8022", False, True),
        ("http://127.0.0.1:8023", "127.0.0.1:8022", False, False),
        ("https://127.0.0.1:8022", "127.0.0.1:8022", False, False),
        ("http://console.example", "console.example", True, False),
        ("http://localhost:8022", "127.0.0.1:8022", False, False),
        ("null", "127.0.0.1:8022", False, False),
        ("", "", False, False),
        ("http://127.0.0.1:8022/", "127.0.0.1:8022", False, False),
        ("http://127.0.0.1:8022 http://evil", "127.0.0.1:8022", False, False),
    ],
)
def test_only_a_page_of_the_same_host_and_port_is_ours(origin: str, host: str, tls: bool, is_same: bool) -> None:
    assert same(origin, host, tls=tls) is is_same


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8022", "127.0.0.1", 8022, True),
        ("localhost", "127.0.0.1", 8022, True),
        (":9", "127.0.0.1", 9, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]", "::1", 8022, True),
        ("0.0.0.0:0", "0.0.0.0", 0, False),
        ("192.0.2.5", "192.0.2.5", 8022, False),
    ],
)
def test_an_address_to_listen_on(text: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["console.example:80", "::1", "127.0.0.1:", "127.0.0.1:65536", "1.2.3", "[::1", "*"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Address.parse(text)


@given(st.text())
def test_any_other_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except InvalidInput:
        return
    assert Address.parse(str(address)) == address
