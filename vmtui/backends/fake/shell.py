"""A shell that is not one: enough of sh to answer what people and tests type into a simulated workload."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections.abc import Sequence

from vmtui.core.backend import ExecRequest

HELP = "simulated: echo cat env exit false hostname id printenv pwd sleep stty test true tty uname"
ENDED = 137  # 128 + SIGKILL
INPUT_LIMIT = 1 << 16  # chunks of input that are kept for a command that does not read


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class Session:
    """A command inside a simulated workload: an ExecSession, and with `tty` also a Terminal."""

    def __init__(self, request: ExecRequest, hostname: str, greeting: str = "") -> None:
        self._request = request
        self._hostname = hostname
        self._greeting = greeting
        self._environment = dict(request.environment)
        self._size = (request.rows, request.columns)
        self._input: asyncio.Queue[bytes] = asyncio.Queue(INPUT_LIMIT)
        self._pending = b""
        self._closed_stdin = False
        self._output: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()
        self._code: int | None = None
        self._task = asyncio.create_task(self._main())

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def read(self) -> tuple[str, bytes] | None:
        item = await self._output.get()
        if item is None:
            self._output.put_nowait(None)
        return item

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the command has ended."""
        if self._task.done() or self._closed_stdin:
            raise ConnectionError("the command has ended")
        if data:
            await self._input.put(data)

    async def close_stdin(self) -> None:
        if not self._closed_stdin:
            self._closed_stdin = True
            await self._input.put(b"")

    async def resize(self, rows: int, columns: int) -> None:
        self._size = (rows, columns)

    async def wait(self) -> int:
        await asyncio.wait([self._task])
        return ENDED if self._code is None else self._code

    def hang_up(self) -> None:
        """End it; who reads it gets what was said, and the end."""
        self._task.cancel()

    async def aclose(self) -> None:
        self.hang_up()
        await asyncio.wait([self._task])

    async def _main(self) -> None:
        try:
            self._code = await self._run(self._request.argv)
        except _Exit as ended:
            self._code = ended.code
        finally:
            self._output.put_nowait(None)

    def _say(self, text: str, stream: str = "stdout") -> None:
        tty = self._request.tty
        data = (text.replace("\n", "\r\n") if tty else text).encode("utf-8", "replace")
        self._output.put_nowait(("stdout" if tty else stream, data))

    async def _line(self) -> bytes | None:
        """A line of input without its end, echoed as a terminal does; None at the end of input."""
        while True:
            match = re.search(rb"\r\n?|\n|\x04", self._pending)
            if match:
                line, self._pending = self._pending[: match.start()], self._pending[match.end() :]
                return None if match[0] == b"\x04" and not line else line
            chunk = await self._input.get()
            if not chunk:
                line, self._pending = self._pending, b""
                self._input.put_nowait(b"")
                return line or None
            if self._request.tty:
                self._say(chunk.replace(b"\r", b"\n").replace(b"\x04", b"").decode("utf-8", "replace"))
            self._pending += chunk

    async def _interactive(self) -> int:
        code = 0
        if self._greeting:
            self._say(f"{self._greeting}\n")
        while True:
            if self._request.tty:
                self._say(f"{self._hostname}:/# ")
            line = await self._line()
            if line is None:
                return code
            code = await self._script(line.decode("utf-8", "replace"))

    async def _script(self, text: str) -> int:
        text = re.sub(r"\$(\w+|\{\w+\})", lambda match: self._environment.get(match[1].strip("{}"), ""), text)
        lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|>")
        lexer.whitespace_split = True
        code = 0
        command: list[str] = []
        skip = False
        try:
            for token in [*lexer, ";"]:
                if token not in (";", "&&", "||"):
                    command.append(token)
                    continue
                if command and not skip:
                    code = await self._run(command)
                command = []
                skip = (token == "&&" and code != 0) or (token == "||" and code == 0)
        except ValueError as error:
            self._say(f"sh: {error}\n", "stderr")
            return 2
        return code

    async def _run(self, argv: Sequence[str]) -> int:
        words, stream = list(argv), "stdout"
        if words[-2:] in ([">&", "2"], ["1>&", "2"]):
            words, stream = words[:-2], "stderr"
        name, *args = words or ["true"]
        match name.rpartition("/")[2]:
            case "sh" | "bash" | "ash":
                return (
                    await self._script(args[1]) if args[:1] == ["-c"] and len(args) > 1 else await self._interactive()
                )
            case "echo":
                self._say(" ".join(args) + "\n", stream)
            case "cat":
                while (line := await self._line()) is not None:
                    self._say(line.decode("utf-8", "replace") + "\n", stream)
            case "env" | "printenv":
                self._say("".join(f"{key}={value}\n" for key, value in self._environment.items()), stream)
            case "exit":
                raise _Exit(int(args[0]) & 255 if args and args[0].isdigit() else 0)
            case "false":
                return 1
            case "help":
                self._say(HELP + "\n", stream)
            case "hostname":
                self._say(self._hostname + "\n", stream)
            case "id":
                self._say(f"uid=0({self._request.user or 'root'})\n", stream)
            case "pwd":
                self._say((self._request.working_dir or "/") + "\n", stream)
            case "sleep":
                with contextlib.suppress(ValueError, IndexError):
                    await asyncio.sleep(float(args[0]))
            case "stty":
                self._say(f"{self._size[0]} {self._size[1]}\n", stream)
            case "test":
                return 0 if args[:1] == ["-t"] and self._request.tty else 1
            case "true" | ":":
                pass
            case "tty":
                self._say("/dev/pts/0\n" if self._request.tty else "not a tty\n", stream)
                return 0 if self._request.tty else 1
            case "uname":
                self._say("Linux\n", stream)
            case _:
                self._say(f"sh: {name}: not found\n", "stderr")
                return 127
        return 0


class Console:
    """A Terminal on an interactive Session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def read(self) -> bytes:
        item = await self._session.read()
        return b"" if item is None else item[1]

    async def write(self, data: bytes) -> None:
        await self._session.write(data)

    async def resize(self, rows: int, columns: int) -> None:
        await self._session.resize(rows, columns)

    async def aclose(self) -> None:
        await self._session.aclose()
