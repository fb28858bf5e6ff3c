"""What this process really did to the host, in memory, bounded: commands and system calls.

System calls are recorded as the command line that would do the same, where there is one, and nothing is formatted
until it is shown. Recording never raises into who acts. It holds no environment but the variables that were set on
purpose, and what looks like a secret is masked before it is kept.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

CHANGES_KEPT = 2000
READS_KEPT = 500  # apart, so that looking at the host again and again pushes out nothing that changed it
ARGV_BYTES = 64 << 10
TEXT_BYTES = 16 << 10  # of one stdin
TEXTS_BYTES = 1 << 20  # of all of them
STDERR_BYTES = 4096
MASK = "***"

_WORD = r"(?:passw(?:or)?d|passphrase|secret|token|api[-_]?key|private[-_]?key|credentials?|creds)"
_ASSIGNED = re.compile(rf"(?i)({_WORD}[\w.-]*=)[^\s,;&]+")
_JSON = re.compile(rf'(?i)({_WORD}[\w.-]*"\s*:\s*)"(?:[^"\\]|\\.)*"')
_USERINFO = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_OPTION = re.compile(rf"(?i)--?[\w-]*{_WORD}[\w-]*")

Words = Sequence[object] | Callable[[], Sequence[object]]


class Way(StrEnum):
    """How it was done. All but `command` and `syscall` are told as a command that would do the same."""

    COMMAND = "command"
    NETLINK = "netlink"
    MOUNT = "mount"
    NAMESPACE = "namespace"
    FILE = "file"
    IOCTL = "ioctl"
    SIGNAL = "signal"
    QMP = "qmp"
    WIRE = "wire"
    SYSCALL = "syscall"  # no command does the same: the call itself, as strace(1) writes it


@dataclass(slots=True, eq=False)
class Act:
    """One thing done. `reads` says that it changed nothing; `elapsed_s` is None while it goes on.

    Of a `lenient` one other codes than 0 are no failure: whoever ran it reads the code.
    """

    number: int
    at: float
    way: Way
    words: Words
    reads: bool = False
    lenient: bool = False
    doing: str = ""  # the step or probe that it was for, "" if nobody said
    environment: tuple[str, ...] = ()  # NAME=value, masked
    cwd: str = ""
    stdin: bytes | None = None
    stdin_bytes: int | None = None
    code: int | None = None
    error: str = ""
    stderr: bytes = b""
    elapsed_s: float | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def argv(self) -> tuple[str, ...]:
        """The words of the command line, or the one text of a system call."""
        words = self.words() if callable(self.words) else self.words
        return tuple(map(str, words))

    @property
    def line(self) -> str:
        """What to paste into a shell; a system call as strace(1) writes it."""
        if self.way is Way.SYSCALL:
            return " ".join(self.argv)
        return shlex.join([*(["env", *self.environment] if self.environment else []), *self.argv])

    @property
    def equivalent(self) -> bool:
        """Whether the line is not what was run but what would do the same."""
        return self.way not in (Way.COMMAND, Way.SYSCALL)

    @property
    def failed(self) -> bool:
        return bool(self.error) or (self.code not in (None, 0) and not self.lenient)

    def ended(self, code: int | None = None, *, stderr: bytes = b"", error: str = "") -> None:
        """It is over. Later calls change nothing. Never raises."""
        if self.elapsed_s is None:
            self.elapsed_s = time.monotonic() - self.began
            self.code = code if self.code is None else self.code
            self.stderr = self.stderr or stderr[-STDERR_BYTES:]
            self.error = self.error or error
            _tell(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.ended(getattr(error, "code", None), error="" if error is None else (str(error) or type(error).__name__))


Listener = Callable[[Act], None]

_doing: ContextVar[tuple[str, bool]] = ContextVar("doing", default=("", False))
_lock = threading.Lock()
_numbers = itertools.count(1)
_changes: deque[Act] = deque(maxlen=CHANGES_KEPT)
_reads: deque[Act] = deque(maxlen=READS_KEPT)
_texts: deque[Act] = deque()
_text_bytes = 0
_forgotten = 0
_listeners: list[Listener] = []


@contextlib.contextmanager
def doing(what: str, *, reads: bool = False) -> Iterator[None]:
    """What is recorded inside, also in tasks that begin there, is for `what`; with `reads` it changes nothing."""
    _, already = _doing.get()
    token = _doing.set((what, reads or already))
    try:
        yield
    finally:
        _doing.reset(token)


def begin(
    way: Way,
    words: Words,
    *,
    reads: bool = False,
    environment: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes | None = None,
    show_stdin: bool = False,
    lenient: bool = False,
) -> Act:
    """Record that something begins; the caller calls `ended` or uses it in `with`. Never raises.

    `words` may be a function, called when they are shown. Of `stdin` only the size is kept unless `show_stdin`.
    """
    what, reading = _doing.get()
    act = Act(number=0, at=time.time(), way=way, words=words, reads=reads or reading, lenient=lenient, doing=what)
    try:
        if way is Way.COMMAND and not callable(words):
            act.words = masked(words)
        if environment:
            changed = ((name, value) for name, value in environment.items() if os.environ.get(name) != value)
            act.environment = masked([f"{name}={value}" for name, value in changed])
        act.cwd = "" if cwd is None else os.fspath(cwd)
        act.stdin_bytes = None if stdin is None else len(stdin)
        if stdin and show_stdin and len(stdin) <= TEXT_BYTES:
            act.stdin = mask(stdin.decode("utf-8", "replace")).encode()
        _keep(act)
    except Exception as error:
        act.error = f"cannot be recorded: {type(error).__name__}"
    _tell(act)
    return act


def write(path: str | os.PathLike[str], text: str) -> Act:
    """Record a write to a file of the kernel's (/proc, /sys)."""
    return begin(Way.FILE, lambda: ("sh", "-c", f"echo {shlex.quote(text.strip())} > {shlex.quote(os.fspath(path))}"))


def _keep(act: Act) -> None:
    global _text_bytes, _forgotten
    with _lock:
        act.number = next(_numbers)
        _forgotten += not act.reads and len(_changes) == CHANGES_KEPT
        (_reads if act.reads else _changes).append(act)
        if act.stdin is not None:
            _texts.append(act)
            _text_bytes += len(act.stdin)
            while _text_bytes > TEXTS_BYTES:
                oldest = _texts.popleft()
                _text_bytes -= len(oldest.stdin or b"")
                oldest.stdin = None


def _tell(act: Act) -> None:
    for listener in tuple(_listeners):
        with contextlib.suppress(Exception):
            listener(act)


def acts(*, after: int = 0) -> list[Act]:
    """What is still kept, oldest first; `after` is the number of the last one already seen."""
    with _lock:
        kept = [*_changes, *_reads]
    return sorted((act for act in kept if act.number > after), key=lambda act: act.number)


def forgotten() -> int:
    """How many that changed something, or may have, are no longer kept."""
    return _forgotten


def subscribe(listener: Listener) -> Callable[[], None]:
    """Call `listener` when something begins and when it ends, in the thread that acts; returns what ends that."""
    _listeners.append(listener)

    def unsubscribe() -> None:
        with contextlib.suppress(ValueError):
            _listeners.remove(listener)

    return unsubscribe


def masked(words: Sequence[object]) -> tuple[str, ...]:
    """The words with secrets masked, and no longer than what is kept of a command line."""
    made: list[str] = []
    room = ARGV_BYTES
    for word in words:
        text = os.fspath(word) if isinstance(word, os.PathLike) else str(word)
        if made and _OPTION.fullmatch(made[-1]) and not text.startswith("-"):
            text = MASK
        if len(text) > room:
            made.append(f"{mask(text[:room])}…")
            break
        room -= len(text)
        made.append(mask(text))
    return tuple(made)


def mask(text: str) -> str:
    """The same text, values that are named like secrets masked."""
    if "=" in text:
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
    if '"' in text:
        text = _JSON.sub(rf'\1"{MASK}"', text)
    return _USERINFO.sub(rf"\1{MASK}@", text) if "://" in text else text
