"""Builds OCI image layouts from Python values, so that tests need no registry and no image builder.

    make_layout(path, layers=[{"etc/motd": b"hello", "bin/sh": ("symlink", "busybox")}], config={"Cmd": ["/bin/sh"]})

A value is bytes (a file), None (a folder), a tuple ("symlink", TARGET), ("hardlink", TARGET), ("whiteout",) or
("opaque",), or an Item for everything else. Entries are written in the order given; nothing is added or sorted.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEDIA_LAYER = {
    "none": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
GO_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
MTIME = 1_700_000_000


@dataclass(frozen=True)
class Item:
    """One tar entry in full. `kind` is a tarfile type byte."""

    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = MTIME
    link: str = ""
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)


Value = bytes | None | tuple[str, ...] | Item
Layer = Mapping[str, Value] | Sequence[tuple[str, Value]] | bytes


def _entry(name: str, value: Value) -> tuple[str, Item]:
    if isinstance(value, Item):
        return name, value
    if value is None:
        return name, Item(kind=tarfile.DIRTYPE, mode=0o755)
    if isinstance(value, bytes):
        return name, Item(data=value)
    folder, _, base = name.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    match value:
        case ("symlink", target):
            return name, Item(kind=tarfile.SYMTYPE, mode=0o777, link=target)
        case ("hardlink", target):
            return name, Item(kind=tarfile.LNKTYPE, link=target)
        case ("whiteout",):
            return f"{prefix}.wh.{base}", Item()
        case ("opaque",):
            return f"{name.rstrip('/')}/.wh..wh..opq", Item()
    raise ValueError(f"{name}: {value!r} is not an entry")


def make_tar(entries: Layer, *, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed layer; bytes are returned as they are."""
    if isinstance(entries, bytes):
        return entries
    pairs: Iterable[tuple[str, Value]] = entries.items() if isinstance(entries, Mapping) else entries
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for name, value in pairs:
            name, item = _entry(name, value)
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = item.kind, item.mode, item.uid, item.gid
            info.mtime, info.linkname = item.mtime, item.link
            info.devmajor, info.devminor = item.device
            info.pax_headers = dict(item.pax)
            info.size = len(item.data)
            tar.addfile(info, io.BytesIO(item.data))
    return out.getvalue()


def compress(data: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(data, compresslevel=1, mtime=0)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=1).compress(data)
    return data


class Layout:
    """An OCI image layout on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        if not (path / "index.json").exists():
            self._write_index([])

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Store a blob; returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def blob_path(self, digest: str) -> Path:
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def manifest(
        self,
        layers: Sequence[Layer],
        config: Mapping[str, Any] | None = None,
        *,
        compression: str = "gzip",
        architecture: str | None = None,
        media_type: str | None = None,
        diff_ids: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Store layers, config and manifest; returns the manifest's descriptor."""
        tars = [make_tar(layer) for layer in layers]
        blobs = [self.blob(compress(tar, compression), media_type or MEDIA_LAYER[compression]) for tar in tars]
        full_config = {
            "architecture": architecture or GO_ARCHITECTURE[platform.machine()],
            "os": "linux",
            "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], **(config or {})},
            "rootfs": {
                "type": "layers",
                "diff_ids": list(diff_ids or [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]),
            },
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": self.blob(json.dumps(full_config).encode(), MEDIA_CONFIG),
            "layers": blobs,
        }
        return self.blob(json.dumps(manifest).encode(), MEDIA_MANIFEST)

    def index(self, manifests: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Store a multi-architecture index of ARCHITECTURE → manifest descriptor; returns its descriptor."""
        entries = [{**item, "platform": {"architecture": arch, "os": "linux"}} for arch, item in manifests.items()]
        data = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries}).encode()
        return self.blob(data, MEDIA_INDEX)

    def tag(self, name: str, descriptor: dict[str, Any]) -> str:
        """Point a tag at a descriptor; returns the reference."""
        others = [
            item
            for item in json.loads((self.path / "index.json").read_text())["manifests"]
            if item["annotations"]["org.opencontainers.image.ref.name"] != name
        ]
        self._write_index([*others, {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}])
        return f"oci:{self.path}:{name}"

    def _write_index(self, manifests: list[dict[str, Any]]) -> None:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))


def make_layout(
    path: Path,
    layers: Sequence[Layer],
    config: Mapping[str, Any] | None = None,
    compression: str = "gzip",
    tag: str = "latest",
    **more: Any,
) -> str:
    """Write an OCI layout with one image; returns its reference, `oci:PATH:TAG`. `config` is the OCI `config` key."""
    layout = Layout(path)
    return layout.tag(tag, layout.manifest(layers, config, compression=compression, **more))
