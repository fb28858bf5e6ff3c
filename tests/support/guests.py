"""Virtual machines for tests: their images, and commands inside them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.support.downloads import KERNEL
from tests.support.oci import Item, make_layout
from vmtui.backends.qemu.backend import QemuBackend
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Context, Desired, ExecRequest, ExecSession
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import VmSpec, spec_hash
from vmtui.core.units import Size

BUSYBOX = Path("/bin/busybox")  # of busybox-static
TIMEOUT_S = 120.0


def busybox_image(folder: Path, applets: tuple[str, ...], config: dict[str, Any]) -> str:
    """An OCI layout with busybox and a user `web`; returns its reference."""
    layer: dict[str, Any] = {
        "bin": None,
        "bin/busybox": Item(data=BUSYBOX.read_bytes(), mode=0o755),
        **{f"bin/{name}": ("symlink", "busybox") for name in applets},
        "etc": None,
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nweb:x:1234:1235:web:/srv:/bin/sh\n",
        "etc/group": b"root:x:0:\nweb:x:1235:\n",
        "srv": Item(kind=b"5", mode=0o755, uid=1234, gid=1235),
    }
    return make_layout(folder / "image", layers=[layer], config=config)


def want(context: Context, ref: Ref, spec: VmSpec, options: QemuOptions | None = None) -> Desired[VmSpec]:
    return Desired(ref=ref, backend="qemu", spec=spec, options=options, spec_hash=spec_hash(spec, options))


def vm(name: str = "guest") -> Ref:
    return Ref("test", Kind.VM, name)


def small(**more: Any) -> VmSpec:
    return VmSpec(**{"kernel": KERNEL, "memory": Size(128 << 20), **more})


async def drain(session: ExecSession) -> tuple[int, bytes, bytes]:
    """The exit code and all output; closes the session."""
    said = {"stdout": b"", "stderr": b""}
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while (item := await session.read()) is not None:
                said[item[0]] += item[1]
            return await session.wait(), said["stdout"], said["stderr"]
    finally:
        await session.aclose()


async def inside(backend: QemuBackend, ref: Ref, script: str, **more: Any) -> tuple[int, bytes, bytes]:
    """Run a shell script as root in the guest, without input."""
    session = await backend.exec(ref, ExecRequest(argv=("sh", "-c", script), user="0", **more))
    await session.close_stdin()
    return await drain(session)
