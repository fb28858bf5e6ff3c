"""asyncssh as a client program: `python -m tests.support.ssh_asyncssh_client HOST PORT KEY KNOWN_HOSTS TTY [COMMAND]`.

On a terminal it is raw while the session lasts, and the size is passed on; on pipes it is passed on as it is. Ends as
ssh(1) does: with the exit code of the other side, or 255.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator

import asyncssh

CHUNK = 1 << 16


async def main(host: str, port: int, key: str, known_hosts: str, terminal: bool, command: str | None) -> int:
    loop = asyncio.get_running_loop()
    async with asyncssh.connect(
        host, port, username="someone", client_keys=[key], known_hosts=known_hosts, config=None, agent_path=None
    ) as connection:
        size = os.get_terminal_size(0) if terminal else None
        process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(
            command,
            term_type=os.environ.get("TERM", "") if terminal else None,
            term_size=tuple(size) if size else (),
            encoding=None,
        )
        if size:
            loop.add_signal_handler(signal.SIGWINCH, lambda: process.change_terminal_size(*os.get_terminal_size(0)))
        sending = asyncio.create_task(send(process))
        with raw() if terminal else contextlib.nullcontext():
            await asyncio.gather(pour(process.stdout, 1), pour(process.stderr, 2))
            await process.wait_closed()
        sending.cancel()
        return 255 if process.returncode is None else process.returncode


async def send(process: asyncssh.SSHClientProcess[bytes]) -> None:
    """What comes on stdin, to its end."""
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        while data := await asyncio.to_thread(os.read, 0, CHUNK):
            process.stdin.write(data)
            await process.stdin.drain()
        process.stdin.write_eof()


async def pour(source: asyncssh.SSHReader[bytes], fd: int) -> None:
    while data := await source.read(CHUNK):
        while data:
            data = data[os.write(fd, data) :]


@contextlib.contextmanager
def raw() -> Iterator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


async def program(host: str, port: str, key: str, known_hosts: str, mode: str, *command: str) -> None:
    """Does not return: the thread that reads stdin waits for a key that may never come."""
    try:
        code = await main(host, int(port), key, known_hosts, mode == "tty", " ".join(command) or None)
    except (OSError, asyncssh.Error) as error:
        sys.stderr.write(f"{error}\n")
        code = 255
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    asyncio.run(program(*sys.argv[1:]))
