"""The files of the page: three of ours, and the terminal (xterm.js) that textual-serve ships.

A closed list: no name of a request becomes a path.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import msgspec

from vmtui.core.errors import MissingCapability

OURS = Path(__file__).resolve().parent / "assets"
THEIRS = "textual_serve"  # its files alone are used; its code has neither logins nor a check of the origin
TYPES = {".js": "text/javascript", ".css": "text/css", ".ttf": "font/ttf"}
FILES = {
    "console.css": OURS / "console.css",
    "console.js": OURS / "console.js",
    "xterm.css": Path("css/xterm.css"),
    "terminal.js": Path("js/textual.js"),
    "mono.ttf": Path("fonts/RobotoMono-VariableFont_wght.ttf"),
}


class Asset(msgspec.Struct, frozen=True):
    """A file as it is sent."""

    data: bytes
    media_type: str
    tag: str


def load() -> dict[str, Asset]:
    """By name. Raises MissingCapability if textual-serve is not there, or has its files elsewhere."""
    found = importlib.util.find_spec(THEIRS)
    if found is None or found.origin is None:
        raise MissingCapability(f"a browser needs the terminal of {THEIRS.replace('_', '-')}", hint=hint())
    folder = Path(found.origin).parent / "static"
    assets = {}
    for name, path in FILES.items():
        try:
            data = (folder / path).read_bytes()
        except OSError as error:
            raise MissingCapability(f"cannot read {error.filename}: {error.strerror}", hint=hint()) from None
        media_type = TYPES[path.suffix]
        if media_type.startswith("text/"):
            media_type += "; charset=utf-8"
        assets[name] = Asset(data, media_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return assets


def hint() -> str:
    return "pip install 'vmtui[web]'"
