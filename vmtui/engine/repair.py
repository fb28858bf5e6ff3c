"""Hints that can be carried out here: which they are, and running one with its output as it comes."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

from vmtui.core.errors import Fault
from vmtui.core.policy import Verb
from vmtui.engine import authority
from vmtui.host import trace
from vmtui.host.process import spawned, which

SHELL = "/bin/sh"
# A hint with one of these is a sentence, whatever its first word may also be.
PROSE = frozenset(
    re.findall(
        r"\S+",
        "a again all an and another as at each for from in is it its most not of one or that the them then this to"
        " what with you your =",
    )
)
SHELL_SIGNS = frozenset("`$|&;<>(){}\\")  # with these a line can do more than its first word says
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]+")  # FILE, NAME, FOLDER: for a person to fill in
# They need a terminal, or are this program, which a person starts anew.
NOT_HERE = frozenset({"sudo", "doas", "su", "vmtui", "vi", "vim", "nano", "man", "less", "more"})
END_S = 2.0


def command_of(hint: str) -> str | None:
    """The command line of a hint that can be run as it is, None for anything else: when in doubt, None.

    apt-get is told not to ask: whoever runs this has been shown the line and has said yes.
    """
    try:
        raw = shlex.shlex(hint, posix=False, punctuation_chars=False)
        raw.whitespace_split = True
        words = list(raw)
        first = shlex.split(hint, comments=True)[0]
    except (ValueError, IndexError):
        return None
    if not hint.isprintable() or any(_is_prose(word) for word in words):
        return None
    if Path(first).name in NOT_HERE or not _is_executable(first):
        return None
    if first == "apt-get" and "-y" not in words:
        return f"DEBIAN_FRONTEND=noninteractive apt-get -y{hint.strip().removeprefix('apt-get')}"
    return hint.strip()


def _is_prose(word: str) -> bool:
    """Whether a word keeps a line from being run as it stands."""
    if word[0] == word[-1] == "'":
        return False
    bare = word.rstrip(",;:")
    if bare != word or "…" in bare or not SHELL_SIGNS.isdisjoint(bare):
        return True
    return bare.lower() in PROSE or PLACEHOLDER.fullmatch(bare) is not None


def _is_executable(first: str) -> bool:
    if "/" in first:
        return os.path.isabs(first) and Path(first).is_file() and os.access(first, os.X_OK)
    try:
        which(first)
    except Fault:
        return False
    return True


async def run(line: str, hear: Callable[[str], None]) -> int:
    """Run a command line by the shell, without input; `hear` gets each line that it says. Its exit code.

    Cancelled, it and what it started are ended first. Raises OSError (there is no shell), Denied without HOST.
    """
    authority.current().require(Verb.HOST, to="run commands on the host")
    path = os.environ.get("PATH", os.defpath)
    beside = [f"{entry[:-3]}sbin" for entry in path.split(":") if entry.endswith("/bin")]
    with trace.begin(trace.Way.COMMAND, (SHELL, "-c", line)) as act:
        starting = asyncio.create_subprocess_exec(
            SHELL, "-c", line,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PATH": ":".join([path, *beside])}, start_new_session=True,
        )  # fmt: skip
        process = await spawned(starting, _end)
        try:
            assert process.stdout is not None
            await _lines(process.stdout, hear)
            code = await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)
        act.ended(code)
    return code


async def _lines(stream: asyncio.StreamReader, hear: Callable[[str], None]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while chunk := await stream.read(65536):
        *whole, rest = re.split(r"\r\n|\n|\r", rest + decoder.decode(chunk))
        for line in whole:
            hear(line)
        if len(rest) > 65536:
            hear(rest)
            rest = ""
    if rest:
        hear(rest)


async def _end(process: asyncio.subprocess.Process) -> None:
    """The whole session of it: first asked, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await process.wait()
                return
