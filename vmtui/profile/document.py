"""A TOML file that a person wrote, to plain data: what profiles and settings share. Faults are of the caller's type."""

from __future__ import annotations

import ast
import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from vmtui.core.errors import FileInvalid
from vmtui.profile import nesting

F = TypeVar("F", bound=FileInvalid)
MAX_FILE_BYTES = 1 << 20
POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
NAMES = re.compile(r"\('.*?',?\)(?= (?:twice|immutable))")  # tomllib shows a key as a tuple


def read(path: Path, fault: type[FileInvalid], *, gone: str = "") -> str:
    """The text of the file, line ends as they are. `gone` is the hint if there is none."""
    try:
        # A fifo would block the open, and its content has no end.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise fault("not a regular file", where=str(path))
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        hint = gone if isinstance(error, FileNotFoundError) else ""
        raise fault(f"cannot read it: {reason[:1].lower()}{reason[1:]}", where=str(path), hint=hint) from None
    return decoded(data, str(path), fault)


def decoded(data: bytes, place: str, fault: type[FileInvalid]) -> str:
    """The text of what was read, of which one byte more than the limit is enough to refuse it."""
    if len(data) > MAX_FILE_BYTES:
        raise fault(f"larger than {MAX_FILE_BYTES >> 20} MiB", where=place)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise fault("not UTF-8", where=f"{place}:{line}") from None


def parse(text: str, path: Path | str, fault: type[FileInvalid], *, form: str) -> dict[str, Any]:
    """The data of a text that is, or may come to be, the content of `path`. `form` says how such a file looks."""
    if (deep := nesting.too_deep(text)) is not None:
        raise too_deep(f"{path}:{deep}", fault, form)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise too_deep(str(path), fault, form) from None
    except tomllib.TOMLDecodeError as error:
        message = NAMES.sub(_dotted, str(error))
        found = POSITION.search(message)
        line = f":{found[1] or text.count(chr(10)) + 1}" if found else ""
        message = POSITION.sub("", message)
        hint = "each table and key may be written once" if "twice" in message or "overwrite" in message else ""
        raise fault(f"not TOML: {message[:1].lower()}{message[1:]}", where=f"{path}{line}", hint=hint) from None
    except ValueError:  # int() refuses more digits than sys.get_int_max_str_digits
        raise fault("not TOML: a number has too many digits", where=str(path)) from None


def too_deep(where: str, fault: type[FileInvalid], form: str) -> FileInvalid:
    return fault("it is nested too deeply", where=where, hint=form)


def meant(word: str, known: Iterable[str]) -> str:
    """The hint for a word that is not known, "" if it is near to none."""
    close = difflib.get_close_matches(word[:80], list(known)[:1000], n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def located(fault: type[F], path: Path, text: str, key: tuple[str | int, ...], message: str, hint: str = "") -> F:
    """A fault of one key of `text`, with its line."""
    from vmtui.profile import rules
    from vmtui.profile.positions import Positions

    where = f"{path}:{Positions(text).line(*key)}" if text else str(path)
    return fault(message, where=where, key=rules.dotted(key), hint=hint)


def _dotted(match: re.Match[str]) -> str:
    from vmtui.profile import rules

    return rules.dotted(ast.literal_eval(match[0]))
