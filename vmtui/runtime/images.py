"""From an image reference to unpacked, verified layers. The one file that drives skopeo.

    CACHE/images/references/HEX.json   what a reference was resolved to; HEX is the reference's own hash
    CACHE/images/work/HEX/             a fetch that is going on

skopeo copies to `dir:`, its plainest form: manifest, configuration and layers arrive byte for byte as the source has
them, so that the digest recorded is the registry's own; `oci:` would rewrite Docker's manifests, compress plain
layers, and refuse to take signatures along. The signature policy of the host always applies.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from vmtui.core.backend import Progress, Report
from vmtui.core.errors import CommandFailed, Fault, InvalidInput, MissingCapability, NotFound, OperationFailed
from vmtui.host import apt
from vmtui.host.files import write_atomic
from vmtui.host.process import run, which
from vmtui.runtime.claim import claim, make_private, sweep
from vmtui.runtime.layers import WAIT_S, LayerStore, Stack, host_error
from vmtui.runtime.manifest import (
    MAX_MANIFEST_BYTES,
    Blob,
    ImageConfig,
    Resolved,
    host_architecture,
    read_config,
    read_manifest,
    sha256,
)
from vmtui.runtime.reference import Reference, parse, require_local

__all__ = ["Image", "ImageConfig", "ImageStore"]

FETCH_S = 1800.0


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is unpacked on this host.

    `layers` are directories for overlayfs, lowest first; not one to one with `diff_ids`, see LayerStore.stack.
    `digest` is the manifest's.
    """

    reference: str
    digest: str
    config: ImageConfig
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a reference. `origin` is the Debian package's version of a deb: image."""

    reference: str
    digest: str
    config: ImageConfig
    diff_ids: tuple[str, ...]
    stack: Stack
    origin: str = ""


class ImageStore:
    """The images of one cache directory, shared by all processes that use it."""

    def __init__(self, cache: Path) -> None:
        self._root = cache / "images"
        self._layers = LayerStore(cache)

    async def ensure(self, reference: str, report: Report) -> Image:
        """The image as it was resolved before, else fetched now. Raises as `pull` does."""
        return await self.lookup(reference) or await self._fetch(parse(reference), report, again=False)

    async def lookup(self, reference: str) -> Image | None:
        """The image as it was resolved before, if all its layers are here. Runs and fetches nothing.

        Raises InvalidInput: not a reference.
        """
        return self.recall(parse(reference))

    async def pull(self, reference: str, report: Report) -> Image:
        """Resolve the reference anew, and fetch what changed.

        Raises InvalidInput (not a reference, not an image, damaged, for another machine), NotFound, MissingCapability
        (no skopeo, no policy, not root), OperationFailed (registry, no space). Then what was there before still is.
        """
        return await self._fetch(parse(reference), report, again=True)

    def _record(self, reference: Reference) -> Path:
        return self._root / "references" / f"{_key(reference)}.json"

    def _remembered(self, reference: Reference) -> Remembered | None:
        try:
            return msgspec.json.decode(self._record(reference).read_bytes(), type=Remembered)
        except (OSError, msgspec.DecodeError):
            return None

    def recall(self, reference: Reference) -> Image | None:
        """As `lookup`, of a reference that has been read."""
        found = self._remembered(reference)
        if found is None or not all(self._layers.has(diff_id) for diff_id in found.diff_ids):
            return None
        layers = [self._layers.tree(diff_id) for diff_id in found.stack.diff_ids]
        if found.stack.folders:
            layers.append(self._layers.folders_tree(found.stack.folders))
            if not layers[-1].is_dir():
                return None
        return Image(
            reference=found.reference,
            digest=found.digest,
            config=found.config,
            layers=tuple(map(str, layers)),
            diff_ids=found.diff_ids,
        )

    async def _fetch(self, reference: Reference, report: Report, *, again: bool) -> Image:
        require_local(reference)
        work = self._root / "work"
        place = work / _key(reference)
        sweep(work)
        try:
            async with claim(place, timeout=WAIT_S) as fd:
                known = self.recall(reference)
                if known is not None and not again:
                    return known  # another fetched it while this one waited
                origin = ""
                if reference.transport == "deb":
                    from vmtui.runtime import debimage

                    origin = await apt.candidate(reference.details)
                    remembered = self._remembered(reference)
                    if known is not None and remembered is not None and remembered.origin == origin:
                        return known
                    report(Progress(message=f"downloading the package {reference.details}"))
                    resolved = await debimage.make(reference.details, place)
                else:
                    resolved = await _copy(reference, place, fd, report)
                return await self._take(reference, resolved, origin, report)
        except InvalidInput as fault:
            raise _named(fault, reference) from fault
        except OSError as error:
            raise host_error(error, f"image {reference}") from error

    async def _take(self, reference: Reference, resolved: Resolved, origin: str, report: Report) -> Image:
        """Unpack what is not yet unpacked, then remember it all."""
        count = len(resolved.blobs)
        for number, blob in enumerate(resolved.blobs):
            message = f"unpacking layer {number + 1} of {count}"

            def progress(fraction: float, number: int = number, message: str = message) -> None:
                report(Progress(message=message, fraction=(number + fraction) / count))

            progress(0.0)
            await self._layers.add(blob, progress)
        diff_ids = tuple(blob.diff_id for blob in resolved.blobs)
        remembered = Remembered(
            reference=str(reference),
            digest=resolved.digest,
            config=resolved.config,
            diff_ids=diff_ids,
            stack=await self._layers.stack(diff_ids),
            origin=origin,
        )
        record = self._record(reference)
        make_private(record.parent)
        write_atomic(record, msgspec.json.encode(remembered))
        image = self.recall(reference)
        if image is None:
            raise OperationFailed(f"image {reference}: its layers were removed while it was fetched")
        return image


def _named(fault: InvalidInput, reference: Reference) -> InvalidInput:
    """The same, naming the image, with a command that shows it."""
    known = str(reference) in fault.message or (reference.path is not None and str(reference.path) in fault.message)
    message = fault.message if known else f"image {reference}: {fault.message}"
    look = f"apt-cache show {reference.details}" if reference.transport == "deb" else f"skopeo inspect {reference}"
    return InvalidInput(message, hint=fault.hint or look, details=fault.details)


def _key(reference: Reference) -> str:
    return hashlib.sha256(str(reference).encode()).hexdigest()


async def _copy(reference: Reference, place: Path, fd: int, report: Report) -> Resolved:
    """Have skopeo copy the image to `place`/image, and read what it is."""
    host_architecture()
    target = place / "image"
    message = f"fetching {reference}"
    report(Progress(message=message))
    fetched = 0

    def on_stdout(data: bytes) -> None:
        nonlocal fetched
        if blobs := data.count(b"Copying blob"):
            fetched += blobs
            report(Progress(message=f"{message}, layer {fetched}"))

    options = ["--command-timeout", f"{FETCH_S:.0f}s", "--tmpdir", str(place)]
    # setpriv: should we be killed, skopeo is, too. Until then it holds the claim's fd, so that nobody takes the
    # directory from under it.
    argv = ["setpriv", "--pdeathsig", "KILL", which("skopeo"), *options, "copy", "--retry-times", "2"]
    if reference.is_loopback:
        argv.append("--src-tls-verify=false")  # else skopeo insists on TLS
    try:
        await run([*argv, str(reference), f"dir:{target}"], timeout=FETCH_S + 10, pass_fds=(fd,), on_stdout=on_stdout)
    except CommandFailed as fault:
        raise _explain(fault, reference) from fault
    data = _read(target / "manifest.json", reference)
    manifest = read_manifest(data, str(reference))
    blob_path = {layer.digest: target / layer.digest.removeprefix("sha256:") for layer in manifest.layers}
    config_data = _read(target / manifest.config.digest.removeprefix("sha256:"), reference)
    config, diff_ids = read_config(config_data, manifest, str(reference))
    blobs = tuple(
        Blob(path=str(blob_path[layer.digest]), digest=layer.digest, size=layer.size, diff_id=diff_id)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
    return Resolved(digest=sha256(data), config=config, blobs=blobs)


def _read(path: Path, reference: Reference) -> bytes:
    """A small file that skopeo wrote, at most one byte more than is allowed of it."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        raise InvalidInput(f"{reference} is not an image: it has no {path.name}") from None


# What skopeo writes to stderr, in the order in which it is looked for.
EXPLANATIONS: tuple[tuple[str, type[Fault], str, str], ...] = (
    (r"no space left on device", OperationFailed, "no space left to fetch image {reference}", "df -h"),
    (
        r"(policy\.json.*no such file|no policy\.json|open .*policy\.json)",
        MissingCapability,
        "image {reference} cannot be fetched: this host has no image signature policy, /etc/containers/policy.json",
        "apt-get install golang-github-containers-common",
    ),
    (
        r"(Source image rejected|signature was required|not accepted by policy)",
        OperationFailed,
        "image {reference} is refused by this host's signature policy",
        "man containers-policy.json",
    ),
    (
        r"no image found in (manifest list|image index) for architecture",
        InvalidInput,
        "image {reference} is not made for linux/{architecture}",
        "skopeo inspect --raw {reference}",
    ),
    (
        r"digest did not match",
        InvalidInput,
        "image {reference} is damaged: a layer does not have the digest that its manifest names",
        "skopeo inspect {reference}",
    ),
    (
        r"(unauthorized|authentication required|denied|status code 40[13]|403 \(Forbidden\))",
        OperationFailed,
        "registry {host} does not let us read {reference}",
        "skopeo login {host}",
    ),
    (
        r"(manifest unknown|name unknown|404 \(Not Found\)|status code 404|reading manifest .* not found)",
        NotFound,
        "registry {host} has no image {reference}",
        "skopeo list-tags {repository}",
    ),
    (
        r"(pinging container registry|no such host|connection refused|i/o timeout|network is unreachable"
        r"|name resolution|deadline exceeded|Client\.Timeout|connection reset|TLS|x509|http: server gave HTTP)",
        OperationFailed,
        "registry {host} cannot be reached for image {reference}",
        "skopeo inspect {reference}",
    ),
)


def _explain(fault: CommandFailed, reference: Reference) -> Fault:
    said = fault.details
    table = EXPLANATIONS if reference.transport == "docker" else EXPLANATIONS[:5]
    for pattern, kind, message, hint in table:
        if re.search(pattern, said, re.IGNORECASE):
            names = {
                "reference": reference,
                "host": reference.host,
                "repository": re.sub(r"(@sha256:.*|:[^:/]*)$", "", str(reference)),
                "architecture": host_architecture(),
            }
            return kind(message.format(**names), hint=hint.format(**names), details=said)
    if reference.path is not None:
        return InvalidInput(f"{reference.path} is not an image that {reference.transport}: can read", details=said)
    return OperationFailed(f"image {reference} cannot be fetched", details=said or str(fault))
