"""Images, modules and files that are not what they must be."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import oci
from tests.support.containers import busybox_layer
from tests.support.refusals import Place

LAYER = oci.MEDIA_LAYER["gzip"]


def file(name: str, data: bytes | str) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        place.write(name, data)

    return prepare


def image(*layers: dict[str, Any], **more: Any) -> Callable[[Place], None]:
    """An image of busybox and `layers` in FOLDER/image; `config` and the rest as `make_layout` takes them."""

    def prepare(place: Place) -> None:
        config = {"Cmd": ["/bin/sleep", "99"], "Env": ["PATH=/bin"]} | more.get("config", {})
        rest = {key: value for key, value in more.items() if key != "config"}
        oci.make_layout(place.folder / "image", layers=[busybox_layer(), *layers], config=config, **rest)

    return prepare


def _largest(place: Place) -> Path:
    image()(place)
    return max((place.folder / "image/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)


def cut_blob(place: Place) -> None:
    """The layer's blob ends early: it no longer has its digest."""
    blob = _largest(place)
    blob.write_bytes(blob.read_bytes()[:1000])


def flipped_blob(place: Place) -> None:
    blob = _largest(place)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 0xFF
    blob.write_bytes(data)


def honest_cut(place: Place) -> None:
    """The blob has its digest, and its gzip stream ends early."""
    layout = oci.Layout(place.folder / "image")
    # A layer that no other image has: one that is in the cache already is never unpacked again.
    tar = oci.make_tar(busybox_layer(cut=secrets.token_bytes(64)))
    blob = layout.blob(oci.compress(tar, "gzip")[:20_000], LAYER)
    diff_ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}"]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MEDIA_MANIFEST,
        "config": layout.blob(json.dumps(config).encode(), oci.MEDIA_CONFIG),
        "layers": [blob],
    }
    layout.tag("latest", layout.blob(json.dumps(manifest).encode(), oci.MEDIA_MANIFEST))


def qemu_img(*words: str) -> Callable[[Place], None]:
    """Runs qemu-img; `{dir}` stands for the folder."""

    def prepare(place: Place) -> None:
        place.write("base", bytes(1 << 20))
        argv = ["qemu-img", *(place.fill(word) for word in words)]
        subprocess.run(argv, check=True, capture_output=True, timeout=180)

    return prepare
