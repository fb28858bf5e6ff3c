"""What an image says of itself: the OCI image specification and Docker's schema 2, as typed structs.

Everything here comes from outside. Decoding bounds it and refuses what the rest of the runtime layer does not
understand, so that an ImageManifest or ImageConfig can be used without further checks.
"""

from __future__ import annotations

import hashlib
import platform
import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, field

from vmtui.core.errors import InvalidInput

MAX_MANIFEST_BYTES = 4 << 20  # the limit that registries and containers/image agree on
MAX_LAYERS = 400  # the kernel stacks at most 500 (fs/overlayfs/params.h, OVL_MAX_STACK); a container adds its own

MANIFESTS = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
# Which compression a layer has is read from its first bytes: Docker's archives label plain tars as gzip.
LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
)
FOREIGN = re.compile(r"application/vnd\.(oci\.image\.layer\.nondistributable|docker\.image\.rootfs\.foreign)\..*")

# `uname -m` → GOARCH, which is how images name architectures.
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}

Digest = Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
Word = Annotated[str, Meta(pattern=r"\A[a-z0-9]{0,32}\Z")]


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A blob by its digest (image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: Annotated[int, Meta(ge=0)]


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """image-spec, manifest.md; Docker's image manifest version 2 schema 2 has the same fields."""

    schema_version: int
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Meta(max_length=MAX_LAYERS)]
    media_type: str = "application/vnd.oci.image.manifest.v1+json"


class _Execution(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The `config` key of image-spec, config.md. Builders write null for empty."""

    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    user: str | None = None
    working_dir: str | None = None
    stop_signal: str | None = None
    exposed_ports: dict[str, object] | None = None
    labels: dict[str, str] | None = None
    volumes: dict[str, object] | None = None


class _RootFs(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    diff_ids: tuple[Digest, ...]


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    rootfs: _RootFs
    architecture: Word = ""
    os: Word = ""
    config: _Execution | None = None


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the image wants to be run. `exposed_ports` as "80/tcp", `volumes` as paths."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as it is transported: a file, not verified yet."""

    path: str
    digest: str
    size: int
    diff_id: str


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a source delivers: everything about an image, with its layers as blobs, lowest first."""

    digest: str
    config: ImageConfig
    blobs: tuple[Blob, ...]


T = TypeVar("T")


def sha256(data: bytes) -> str:
    """The digest of some bytes as images write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def host_architecture() -> str:
    """This machine as images name it. Raises InvalidInput on one for which nobody builds images."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise InvalidInput(f"no image is built for this machine's architecture, {machine}")
    return ARCHITECTURES[machine]


def _decode(data: bytes, kind: type[T], what: str) -> T:
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidInput(f"{what} is larger than {MAX_MANIFEST_BYTES >> 20} MiB")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{what} cannot be read: {error}") from None


def read_manifest(data: bytes, reference: str) -> ImageManifest:
    """Raises InvalidInput: not a manifest of one image, or with layers that cannot be had or understood."""
    manifest = _decode(data, ImageManifest, f"the manifest of {reference}")
    if manifest.schema_version != 2 or manifest.media_type not in MANIFESTS:
        raise InvalidInput(f"{reference} is not an image: its manifest is of type {manifest.media_type!r}")
    if not manifest.layers:
        raise InvalidInput(f"{reference} has no layers, so that there is nothing to run")
    for layer in manifest.layers:
        if FOREIGN.fullmatch(layer.media_type):
            raise InvalidInput(f"{reference} has a layer that may not be distributed, {layer.digest}")
        if layer.media_type not in LAYERS:
            raise InvalidInput(f"{reference} has a layer of unknown type {layer.media_type!r}")
    return manifest


def read_config(data: bytes, manifest: ImageManifest, reference: str) -> tuple[ImageConfig, tuple[str, ...]]:
    """The image's configuration and its diff_ids, lowest first.

    Raises InvalidInput: another digest or machine than expected, or not one diff_id per layer.
    """
    if sha256(data) != manifest.config.digest:
        raise InvalidInput(f"{reference}: the configuration is damaged, its digest is not {manifest.config.digest}")
    read = _decode(data, _Config, f"the configuration of {reference}")
    here = host_architecture()
    if (read.os or "linux") != "linux" or (read.architecture or here) != here:
        raise InvalidInput(f"{reference} is made for {read.os}/{read.architecture}, this machine is linux/{here}")
    diff_ids = read.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidInput(f"{reference} has {len(manifest.layers)} layers, but {len(diff_ids)} diff_ids")
    given = read.config or _Execution()
    config = ImageConfig(
        env=given.env or (),
        entrypoint=given.entrypoint or (),
        cmd=given.cmd or (),
        user=given.user or "",
        working_dir=given.working_dir or "",
        stop_signal=given.stop_signal or "",
        exposed_ports=tuple(given.exposed_ports or ()),
        labels=given.labels or {},
        volumes=tuple(given.volumes or ()),
    )
    if _has_nul(config):
        raise InvalidInput(f"{reference}: the configuration has a NUL character")
    return config, diff_ids


def _has_nul(config: ImageConfig) -> bool:
    texts = [*config.env, *config.entrypoint, *config.cmd, *config.volumes, *config.exposed_ports]
    return any("\0" in text for text in [*texts, config.user, config.working_dir, config.stop_signal])
