"""What the console over SSH is measured beside: `python -m bench.ssh.peers echo|subprocess PORT HOST_KEY KEYS [ARGV…]`.

`echo` is asyncssh alone: a line at once, then each key back. `subprocess` runs ARGV on a pseudo terminal of its own for
each session, as one does without a fork server.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios

import asyncssh

CHUNK = 1 << 16
READY = "listening"

Process = asyncssh.SSHServerProcess[bytes]


async def echo(process: Process) -> None:
    process.stdout.write(b"Resources\r\n")
    while data := await typed(process):
        process.stdout.write(data)


async def typed(process: Process) -> bytes:
    """What is typed next, b"" at its end. A new size is not looked at."""
    while True:
        try:
            return await process.stdin.read(CHUNK)
        except asyncssh.TerminalSizeChanged:
            continue
        except (asyncssh.BreakReceived, asyncssh.SignalReceived):
            return b""


async def spawn(process: Process, argv: list[str]) -> None:
    """Ends what it has started when the channel closes, as a terminal does that goes away."""
    master, slave = os.openpty()
    columns, rows, *_ = process.term_size
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    term = process.term_type or "dumb"
    child = subprocess.Popen(  # noqa: ASYNC220
        argv, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": term}, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    pouring = asyncio.create_task(pour(master, process))
    try:
        while data := await typed(process):
            os.write(master, data)
    finally:
        pouring.cancel()
        await asyncio.wait([pouring])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGHUP)
        os.close(master)
        await asyncio.to_thread(child.wait)


async def pour(master: int, process: Process) -> None:
    loop = asyncio.get_running_loop()
    while True:
        ready = asyncio.Event()
        loop.add_reader(master, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(master)
        try:
            process.stdout.write(os.read(master, CHUNK))
            await process.stdout.drain()
        except (OSError, asyncssh.Error):  # EIO: it has ended
            process.close()
            return


async def main(kind: str, port: int, host_key: str, keys: str, argv: list[str]) -> None:
    async def serve(process: Process) -> None:
        with contextlib.suppress(asyncssh.Error, ConnectionError):
            await (echo(process) if kind == "echo" else spawn(process, argv))

    await asyncssh.listen(
        "127.0.0.1", port, server_host_keys=[host_key], authorized_client_keys=keys, process_factory=serve,
        encoding=None, line_editor=False,
    )  # fmt: skip
    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    kind, port, host_key, keys, *argv = sys.argv[1:]
    asyncio.run(main(kind, int(port), host_key, keys, argv))
