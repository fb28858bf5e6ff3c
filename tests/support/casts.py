"""Recordings of sessions that never were."""

from __future__ import annotations

from pathlib import Path

import msgspec

from vmtui.engine import recordings
from vmtui.engine.recordings import Event, Header


def cast(
    *events: tuple[float, str, str], person: str = "anna", session: str = "7f3a", version: int = recordings.VERSION
) -> bytes:
    """The bytes of one."""
    header = Header(
        version=version,
        width=80,
        height=24,
        timestamp=1_796_033_700,
        title=f"{person} in dev",
        env={"TERM": "xterm", recordings.SESSION: session, recordings.PERSON: person, recordings.ROLE: "operator"},
    )
    return b"".join(msgspec.json.encode(line) + b"\n" for line in (header, *(Event(*event) for event in events)))


def write(path: Path, *events: tuple[float, str, str], **more: str | int) -> Path:
    """The same in a file that nobody else may read."""
    path.write_bytes(cast(*events, **more))  # type: ignore[arg-type]
    path.chmod(0o600)
    return path
