"""SFTP in a session process: `sftp`, `scp` and `sshfs` on the volumes and images that the role may reach.

One request after another, on stdin and stdout. The old protocol of scp, and all else that needs a shell, is not there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial

from vmtui.core.errors import Fault
from vmtui.core.policy import Verb
from vmtui.engine import authority, files
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.ssh import sftp_wire as wire
from vmtui.ssh.sftp_files import Files
from vmtui.ssh.sftp_tree import Tree, Volume
from vmtui.ssh.sftp_wire import BadMessage


def main() -> int:
    """Serve until the client has closed its end; the exit code."""
    try:
        return asyncio.run(_main())
    except Fault as fault:
        sys.stderr.write(f"error: {fault}\n")
        return 1


async def _main() -> int:
    async with await Workspace.open(Paths.from_environment()) as workspace:
        volumes = [
            Volume(ref, tree, partial(files.held, workspace, ref)) for ref, tree in await files.all_of(workspace)
        ]

        def note(volume: Volume, message: str) -> None:
            authority.current().note(Verb.FILES, (volume.ref,), "done", message)

        with Files(Tree(volumes), note) as served:
            return serve(served, 0, 1)


def serve(served: Files, reading: int, writing: int) -> int:
    """Answer what comes on one descriptor on the other. The exit code: 0 if the client ended it."""
    with open(reading, "rb", buffering=wire.MAX_PACKET_BYTES, closefd=False) as source:
        while len(length := source.read(4)) == 4:
            count = int.from_bytes(length, "big")
            if not 0 < count <= wire.MAX_PACKET_BYTES:
                return 1
            data = source.read(count)
            if len(data) < count:
                return 1
            try:
                answer = served.answer(data)
            except BadMessage:
                return 1
            try:
                _write_all(writing, answer)
            except OSError:
                return 0
    return 0


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
