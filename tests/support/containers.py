"""A container image of busybox alone, made here, and a backend in a workspace of its own."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

from tests.support.hostview import HostView
from tests.support.oci import Item, Value, make_layout
from vmtui.backends.oci.backend import OciBackend
from vmtui.backends.oci.options import OciOptions
from vmtui.core.backend import Attachments, Context, Desired, ExecRequest, LogLine, silent
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Port, Ref, Status
from vmtui.core.specs import ContainerSpec, spec_hash
from vmtui.host.paths import Paths

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    *(
        "cat",
        "chmod",
        "chown",
        "cut",
        "date",
        "dd",
        "echo",
        "env",
        "false",
        "find",
        "grep",
        "head",
        "hostname",
        "httpd",
    ),
    *("id", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount", "nc", "nproc", "od", "ping", "ps", "pwd", "readlink"),
    *("rm", "seq", "sh", "sleep", "stat", "stty", "tail", "test", "touch", "tr", "true", "tty", "umount", "wc", "wget"),
    *("yes", "sed", "sort", "sync", "time", "timeout", "uname", "unshare"),
)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv/web:/bin/sh\n"
GROUP = b"root:x:0:\nstaff:x:50:root\nwww:x:44:\nextra:x:60:web\n"


def busybox_layer(**more: Value) -> dict[str, Value]:
    """Files of a tiny system."""
    files: dict[str, Value] = {"bin/busybox": Item(data=BUSYBOX.read_bytes(), mode=0o755)}
    for applet in APPLETS:
        files[f"bin/{applet}"] = ("symlink", "busybox")
    files |= {
        "etc/passwd": PASSWD,
        "etc/group": GROUP,
        "tmp": Item(kind=b"5", mode=0o1777),
        "root": None,
        "srv/web": Item(kind=b"5", mode=0o750, uid=33, gid=44),
    }
    return files | more


def busybox_image(folder: Path, layers: tuple[dict[str, Value], ...] = (), **config: Any) -> str:
    """A reference to an image made in `folder`. `config` as in image-spec: Cmd, Env, User, …"""
    settings = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]} | config
    make_layout(folder, layers=[busybox_layer(), *layers], config=settings)
    return f"oci:{folder}"


class MarkedContext(Context, frozen=True, kw_only=True):
    """Without an engine: the exit command only leaves a file that says for whom it ran, and in which workspace."""

    def reap_argv(self, ref: Ref) -> list[str]:
        script = 'printf %s "$1 $XDG_STATE_HOME" > "$2"'
        return ["/bin/sh", "-c", script, "reap", str(ref), str(self.reaped(ref))]

    def reaped(self, ref: Ref) -> Path:
        return self.paths.state.parents[1] / f"reaped-{ref.name}"


class Yard:
    """Containers of one test: made, run, and at the end removed without a trace."""

    def __init__(self, root: Path, image: str, cache: Path) -> None:
        paths = Paths(root / "s" / "vmtui", cache, root / "r" / "vmtui")
        paths.make()
        self.root = root
        self.image = image
        self.context = MarkedContext(paths=paths, workspace=secrets.token_hex(4))
        self.backend = OciBackend(self.context)
        self.refs: set[Ref] = set()

    def ref(self, name: str) -> Ref:
        ref = Ref("yard", Kind.CONTAINER, name)
        self.refs.add(ref)
        return ref

    def want(
        self, script: str | None = None, name: str = "one", options: OciOptions | None = None, **spec: Any
    ) -> Desired[ContainerSpec]:
        if script is not None:
            spec["command"] = ("/bin/sh", "-c", script)
        made = ContainerSpec(**{"image": self.image, **spec})
        return Desired(
            ref=self.ref(name), backend="oci", spec=made, options=options, spec_hash=spec_hash(made, options)
        )

    async def create(self, desired: Desired[ContainerSpec]) -> Ref:
        await self.backend.create(desired, silent)
        return desired.ref

    async def up(self, script: str | None = None, name: str = "one", **spec: Any) -> Ref:
        """A running one."""
        ref = await self.create(self.want(script, name, **spec))
        await self.start(ref)
        return ref

    async def start(self, ref: Ref, *ports: Port) -> None:
        await self.backend.start(ref, Attachments(ports=ports), silent)

    async def run(self, script: str | None = None, name: str = "one", **spec: Any) -> tuple[int, str]:
        """Run it to its end; its exit code and what it wrote to both streams, in order."""
        ref = await self.up(script, name, **spec)
        status = await self.comes_to(ref, Phase.EXITED)
        assert status.exit is not None
        text = "".join(f"{line.text}\n" for line in await self.log(ref))
        await self.backend.delete(ref, purge=False)
        return status.exit.code, text

    async def comes_to(self, ref: Ref, phase: Phase, timeout_s: float = 90.0) -> Status:
        deadline = time.monotonic() + timeout_s
        while (status := await self.backend.inspect(ref)).phase is not phase:
            assert time.monotonic() < deadline, f"{ref} is {status.phase}, not {phase}: {status.problems}"
            await asyncio.sleep(0.02)
        return status

    async def log(self, ref: Ref, tail: int | None = None) -> list[LogLine]:
        return [line async for line in self.backend.logs(ref, tail=tail, follow=False)]

    async def says(self, ref: Ref, text: str, timeout_s: float = 90.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not any(text in line.text for line in await self.log(ref)):
            assert time.monotonic() < deadline, f"{ref} does not say {text!r}"
            await asyncio.sleep(0.02)

    async def exec(self, ref: Ref, *argv: str, stdin: bytes = b"", **more: Any) -> tuple[int, bytes]:
        """A command to its end: code and both streams."""
        session = await self.backend.exec(ref, ExecRequest(argv=argv, **more))
        try:
            if stdin:
                await session.write(stdin)
            if not more.get("tty"):
                await session.close_stdin()
            said = b""
            async with asyncio.timeout(90):
                while (item := await session.read()) is not None:
                    said += item[1]
                return await session.wait(), said
        finally:
            await session.aclose()

    def view(self) -> HostView:
        return HostView.of(self.context, self.refs)

    async def clear(self) -> None:
        """Remove every container, and see that the host has nothing of them."""
        for status in await self.backend.scan():
            await self.backend.delete(status.ref, purge=True)
        assert list(await self.backend.scan()) == []
        deadline = time.monotonic() + 60.0  # exit commands that were under way
        while not (view := self.view()).empty and time.monotonic() < deadline:  # noqa: ASYNC110 - processes
            await asyncio.sleep(0.02)
        assert view.empty, f"left behind:\n{view}"
