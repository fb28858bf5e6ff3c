"""A changed profile to its file: checked first, whole or not at all, and never over what somebody else wrote."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from vmtui.core.errors import Conflict, OperationFailed, ProfileInvalid
from vmtui.host.files import in_words, remedy, write_atomic
from vmtui.profile import document, load
from vmtui.profile.schema import OptionTypes, Profile

NEW_MODE = 0o644


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it was read; `text` is None for one that was not there."""

    path: Path
    text: str | None


def open_(path: Path) -> Opened:
    """Read what is to be changed. Raises ProfileInvalid for what is there and cannot be read."""
    path = Path(os.path.abspath(path))
    return Opened(path=path, text=load.read(path) if os.path.lexists(path) else None)


def save(opened: Opened, text: str, option_types: OptionTypes) -> Profile:
    """Replace the file by `text`; the profile that it now is.

    Raises ProfileInvalid (the loader's, and the file stands), Conflict (it changed since it was read), OperationFailed.
    """
    profile = load.loads(text, opened.path, option_types)
    data = text.encode()
    if len(data) > document.MAX_FILE_BYTES:
        raise ProfileInvalid(f"larger than {document.MAX_FILE_BYTES >> 20} MiB", where=str(opened.path))
    _unchanged(opened)
    target = Path(os.path.realpath(opened.path))  # a symbolic link stays one
    try:
        before = target.stat() if opened.text is not None else None
        write_atomic(target, data, mode=before.st_mode & 0o7777 if before else NEW_MODE)
        if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(OSError):
                os.chown(target, before.st_uid, before.st_gid)
    except OSError as error:
        raise OperationFailed(
            f"{opened.path} cannot be written: {in_words(error)}", hint=remedy(error, target.parent)
        ) from None
    return profile


def _unchanged(opened: Opened) -> None:
    there = os.path.lexists(opened.path)
    now = None
    with contextlib.suppress(ProfileInvalid):
        now = load.read(opened.path) if there else None
    if there is not (opened.text is not None) or now != opened.text:
        what = "has changed" if there else "is gone"
        raise Conflict(f"{opened.path} {what} since it was read", hint="open it again: what you changed is not written")
