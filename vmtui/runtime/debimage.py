"""`deb:PACKAGE` as an image: one Debian package, unpacked and never installed, with what a container expects around it.

Dependencies are not followed, so the package should bring a static program: `deb:busybox-static` is a complete small
system with sh, httpd, wget and udhcpc.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from pathlib import Path

import msgspec

from vmtui.core.errors import CommandFailed, InvalidInput
from vmtui.host import apt
from vmtui.host.process import run
from vmtui.runtime.manifest import Blob, ImageConfig, Resolved, host_architecture, sha256

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUSYBOX = ("bin/busybox", "usr/bin/busybox")
NOBODY = "65534:65534"

FOLDERS = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "etc/udhcpc": 0o755,
    "home": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sbin": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
FILES = {
    "etc/passwd": (0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    "etc/group": (0o644, "root:x:0:\nnogroup:x:65534:\n"),
    # What busybox's udhcpc runs when it has a lease (its examples/udhcp); the variables are its own.
    "etc/udhcpc/default.script": (
        0o755,
        """#!/bin/sh
case "$1" in
deconfig)
    ip address flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    ip address replace "$ip/$mask" dev "$interface"
    if [ -n "$router" ]; then
        ip route replace default via "${router%% *}" dev "$interface"
    fi
    : >/etc/resolv.conf
    if [ -n "$domain" ]; then
        echo "search $domain" >>/etc/resolv.conf
    fi
    for server in $dns; do
        echo "nameserver $server" >>/etc/resolv.conf
    done
    ;;
esac
""",
    ),
}


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    size: int


async def make(package: str, work: Path) -> Resolved:
    """Download `package` and make its layer in the folder `work`. The same package makes the same digest.

    Raises Fault (unknown package, no network), InvalidInput (its busybox does not run).
    """
    tree = work / "package"
    await apt.unpack(package, tree)
    links = await _applets(tree)
    layer = work / "layer.tar"
    await asyncio.to_thread(_write, tree, links, layer)
    digest = await asyncio.to_thread(_digest, layer)
    config = ImageConfig(env=(f"PATH={PATH}",), cmd=("/bin/sh",), working_dir="/")
    size = layer.stat().st_size
    manifest = {
        "architecture": host_architecture(),
        "config": msgspec.to_builtins(config),
        "layers": [_Layer(digest=digest, size=size)],
        "os": "linux",
    }
    blob = Blob(path=str(layer), digest=digest, size=size, diff_id=digest)
    return Resolved(digest=sha256(msgspec.json.encode(manifest, order="deterministic")), config=config, blobs=(blob,))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


async def _applets(tree: Path) -> dict[str, str]:
    """The links that make each of busybox's applets a command; {} if the package has no busybox."""
    busybox = next((name for name in BUSYBOX if (tree / name).is_file() and not (tree / name).is_symlink()), None)
    if busybox is None:
        return {}
    try:  # the package's own program, so as nobody and with nothing but the package in sight
        listed = await run(
            ["chroot", f"--userspec={NOBODY}", "--groups=", tree, f"/{busybox}", "--list"], timeout=10, reads=True
        )
    except CommandFailed as fault:
        raise InvalidInput(
            f"{busybox} of the package does not run by itself", hint='use "deb:busybox-static"', details=fault.details
        ) from None
    target = "busybox" if busybox == "bin/busybox" else f"/{busybox}"
    names = sorted({name for name in listed.stdout.decode().split() if "/" not in name} - {"busybox"})
    links = {f"bin/{name}": target for name in names}
    if busybox != "bin/busybox":
        links["bin/busybox"] = target
    return links


def _write(tree: Path, links: dict[str, str], layer: Path) -> None:
    """One tar, entries sorted, everything owned by root; what the package has wins over what is added."""
    ours: dict[str, tuple[int, bytes, str | bytes]] = {
        name: (mode, tarfile.DIRTYPE, b"") for name, mode in FOLDERS.items()
    }
    ours |= {name: (mode, tarfile.REGTYPE, text.encode()) for name, (mode, text) in FILES.items()}
    ours |= {name: (0o777, tarfile.SYMTYPE, target) for name, target in links.items()}
    theirs = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(theirs | ours.keys()):
            if name in theirs:
                info = tar.gettarinfo(tree / name, name)
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                info.mtime = int(info.mtime)
                with (tree / name).open("rb") if info.isreg() else io.BytesIO() as file:
                    tar.addfile(info, file)
                continue
            info = tarfile.TarInfo(name)
            info.mode, info.type, content = ours[name]
            if isinstance(content, str):
                info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
