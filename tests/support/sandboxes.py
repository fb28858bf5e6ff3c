"""Real sandboxes in a workspace of their own."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from vmtui.backends.wasm.backend import WasmBackend
from vmtui.core.backend import Attachments, Context, Desired, silent
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Ref, Status
from vmtui.core.specs import SandboxSpec, spec_hash

END_S = 90.0


class QuietContext(Context, frozen=True, kw_only=True):
    """What runs at a module's end writes a file, in place of the engine's restart policy."""

    def reap_argv(self, ref: Ref) -> list[str]:
        return ["/bin/sh", "-c", f'echo "$XDG_STATE_HOME" > {self.paths.cache / "reaped"}']


class Sandboxes:
    """One workspace with a folder for what specs refer to."""

    def __init__(self, context: Context, folder: Path) -> None:
        self.backend = WasmBackend(context)
        self.context = context
        self.folder = folder

    def desired(self, source: str | bytes, name: str = "one", options: Any = None, **fields: Any) -> Desired[Any]:
        path = self.folder / f"{name}.wat"
        path.write_bytes(source.encode() if isinstance(source, str) else source)
        spec = SandboxSpec(module=str(path), **fields)
        ref = Ref("test", Kind.SANDBOX, name)
        return Desired(ref=ref, backend="wasm", spec=spec, options=options, spec_hash=spec_hash(spec, options))

    async def start(self, source: str | bytes, name: str = "one", **fields: Any) -> Ref:
        desired = self.desired(source, name, **fields)
        await self.backend.create(desired, silent)
        await self.backend.start(desired.ref, Attachments(), silent)
        return desired.ref

    async def ended(self, ref: Ref) -> Status:
        deadline = time.monotonic() + END_S
        while (status := await self.backend.inspect(ref)).phase in (Phase.RUNNING, Phase.PAUSED):
            assert time.monotonic() < deadline, "it did not end"
            await asyncio.sleep(0.01)
        return status

    async def result(self, source: str | bytes, name: str = "one", **fields: Any) -> tuple[int, str]:
        status = await self.ended(await self.start(source, name, **fields))
        assert status.exit is not None
        return status.exit.code, status.exit.reason

    async def said(self, ref: Ref, stream: str = "stdout") -> list[str]:
        lines = [line async for line in self.backend.logs(ref, tail=None, follow=False)]
        return [line.text for line in lines if line.stream == stream]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
