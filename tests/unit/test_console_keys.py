"""What a terminal sends for a key reaches the guest as the same bytes; with the Kitty protocol, as xterm's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual._xterm_parser import XTermParser
from textual.events import Key, Paste

from vmtui.tui.console import alt_keys
from vmtui.tui.console.engine import Modes, Mouse, MouseCoding
from vmtui.tui.console.keys import encode, paste
from vmtui.tui.console.mouse import ALT, CTRL, NO_BUTTON, SHIFT, WHEEL_UP, Act, report

PLAIN = Modes()


@pytest.fixture(autouse=True)
def _alt_keys() -> None:
    alt_keys.teach()


def through_textual(sent: str, modes: Modes = PLAIN) -> bytes:
    """What the guest gets when the terminal sends `sent`."""
    parser = XTermParser()
    messages = [*parser.feed(sent), *parser.feed("")]
    return b"".join(encode(event.key, event.character, modes) for event in messages if isinstance(event, Key))


CONTROL = [chr(code) for code in range(32) if chr(code) not in "\x1b"] + ["\x7f"]
CURSOR = ["\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[H", "\x1b[F"]
MODIFIED = [f"\x1b[1;{modifier}{final}" for modifier in range(2, 9) for final in "ABCDHFPQS"]
EDITING = ["\x1b[2~", "\x1b[3~", "\x1b[5~", "\x1b[6~", "\x1b[3;5~", "\x1b[5;3~", "\x1b[2;2~", "\x1b[6;6~"]
FUNCTION = ["\x1bOP", "\x1bOQ", "\x1bOR", "\x1bOS", *(f"\x1b[{code}~" for code in (15, 17, 18, 19, 20, 21, 23, 24))]
MODIFIED_FUNCTION = [f"\x1b[{code};{modifier}~" for code in (15, 21, 24) for modifier in (2, 3, 5, 6)]
ALT_KEYS = [f"\x1b{chr(code)}" for code in range(0x20, 0x7F) if chr(code) not in "[O]P_^X"]


@pytest.mark.parametrize(
    "sent",
    [
        *CONTROL,
        *CURSOR,
        *MODIFIED,
        *EDITING,
        *FUNCTION,
        *MODIFIED_FUNCTION,
        *ALT_KEYS,
        "\x1b[Z",
        "\x1b\x7f",
        "\x1b\x01",
    ],
)
def test_what_xterm_sends_is_what_the_guest_gets(sent: str) -> None:
    assert through_textual(sent) == sent.encode()


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ("\x1b[112;5u", b"\x10"),  # Ctrl+P
        ("\x1b[113;5u", b"\x11"),  # Ctrl+Q
        ("\x1b[99;5u", b"\x03"),
        ("\x1b[92;5u", b"\x1c"),  # Ctrl+\
        ("\x1b[95;5u", b"\x1f"),  # Ctrl+_
        ("\x1b[47;5u", b"\x1f"),  # Ctrl+/
        ("\x1b[32;5u", b"\0"),  # Ctrl+Space
        ("\x1b[104;5u", b"\x08"),  # Ctrl+H
        ("\x1b[127u", b"\x7f"),
        ("\x1b[127;5u", b"\x08"),
        ("\x1b[9;2u", b"\x1b[Z"),  # Shift+Tab
        ("\x1b[120;3u", b"\x1bx"),  # Alt+X
        ("\x1b[120;4u", b"\x1bX"),
        ("\x1b[46;3u", b"\x1b."),
        ("\x1b[27u", b"\x1b"),
        ("\x1b[13u", b"\r"),
        ("\x1b[97;2;65u", b"A"),
        ("\x1b[97;;97u", b"a"),
        ("\x1b[91;5u", b"\x1b"),  # Ctrl+[
        ("\x1b[1;2P", b"\x1b[1;2P"),  # Shift+F1
        ("\x1b[57441;2u", b""),  # Shift alone
        ("\x1b[252;;252u", "ü".encode()),
    ],
)
def test_keys_of_the_kitty_protocol_are_sent_as_xterm_sends_them(sent: str, got: bytes) -> None:
    assert through_textual(sent) == got


@pytest.mark.parametrize("text", ["q", "Q", "1", ":", "/", "é", "漢", "😀", "ß", " ", "[", "~"])
def test_characters_are_themselves(text: str) -> None:
    assert through_textual(text) == text.encode()


def test_what_the_guest_sets_changes_the_keys() -> None:
    assert through_textual("\x1b[A", Modes(application_cursor=True)) == b"\x1bOA"
    assert through_textual("\x1b[1;5A", Modes(application_cursor=True)) == b"\x1b[1;5A"
    assert through_textual("\r", Modes(newline=True)) == b"\r\n"
    assert through_textual("\x7f", Modes(backspace_is_bs=True)) == b"\x08"


def test_escape_and_a_key_at_once_are_both_bytes() -> None:
    """As vi is used over a slow line."""
    assert through_textual("\x1b1G") == b"\x1b1G"
    assert through_textual("\x1bb") == b"\x1bb"


def test_a_paste_is_bracketed_and_cannot_end_itself() -> None:
    text = "one\ntwo\r\n\tthree\x1b[201~\x03rm -rf /\n"
    clean = b"one\rtwo\r\tthree[201~rm -rf /\r"
    assert paste(text, PLAIN) == clean
    assert paste(text, Modes(bracketed_paste=True)) == b"\x1b[200~" + clean + b"\x1b[201~"
    (event,) = (e for e in XTermParser().feed("\x1b[200~a\nb\x1b[201~x") if isinstance(e, Paste))
    assert paste(event.text, PLAIN) == b"a\rb"


@given(key=st.text(max_size=20), character=st.none() | st.text(max_size=2), application=st.booleans())
def test_no_key_raises(key: str, character: str | None, application: bool) -> None:
    encode(key, character, Modes(application_cursor=application, backspace_is_bs=application))


@pytest.mark.parametrize(
    ("mouse", "coding", "act", "button", "held", "expected"),
    [
        (Mouse.OFF, MouseCoding.SGR, Act.PRESS, 0, 0, b""),
        (Mouse.PRESSES, MouseCoding.LEGACY, Act.PRESS, 0, CTRL, b"\x1b[M *#"),
        (Mouse.PRESSES, MouseCoding.LEGACY, Act.RELEASE, 0, 0, b""),
        (Mouse.CLICKS, MouseCoding.LEGACY, Act.RELEASE, 2, 0, b"\x1b[M#*#"),
        (Mouse.CLICKS, MouseCoding.SGR, Act.PRESS, 2, SHIFT | ALT, b"\x1b[<14;10;3M"),
        (Mouse.CLICKS, MouseCoding.SGR, Act.RELEASE, 2, 0, b"\x1b[<2;10;3m"),
        (Mouse.CLICKS, MouseCoding.SGR, Act.MOVE, 0, 0, b""),
        (Mouse.CLICKS, MouseCoding.SGR, Act.PRESS, WHEEL_UP, 0, b"\x1b[<64;10;3M"),
        (Mouse.DRAGS, MouseCoding.SGR, Act.MOVE, NO_BUTTON, 0, b""),
        (Mouse.DRAGS, MouseCoding.SGR, Act.MOVE, 0, 0, b"\x1b[<32;10;3M"),
        (Mouse.MOTION, MouseCoding.SGR, Act.MOVE, NO_BUTTON, 0, b"\x1b[<35;10;3M"),
        (Mouse.MOTION, MouseCoding.URXVT, Act.PRESS, 0, 0, b"\x1b[32;10;3M"),
        (Mouse.MOTION, MouseCoding.UTF8, Act.PRESS, 0, 0, b"\x1b[M *#"),
    ],
)
def test_mouse_reports(mouse: Mouse, coding: MouseCoding, act: Act, button: int, held: int, expected: bytes) -> None:
    assert report(act, button, 9, 2, held, Modes(mouse=mouse, mouse_coding=coding)) == expected


def test_cells_that_the_old_coding_cannot_name_are_not_reported() -> None:
    assert report(Act.PRESS, 0, 300, 2, 0, Modes(mouse=Mouse.CLICKS)) == b""
    utf8 = Modes(mouse=Mouse.CLICKS, mouse_coding=MouseCoding.UTF8)
    assert report(Act.PRESS, 0, 300, 2, 0, utf8) == f"\x1b[M {chr(333)}#".encode()
