"""Images from a real registry on loopback: Debian's docker-registry, with plain HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import claims
from tests.support.oci import Layout, make_layout
from vmtui.core.backend import silent
from vmtui.core.errors import Fault, InvalidInput, NotFound, OperationFailed
from vmtui.host.process import which
from vmtui.runtime.images import ImageStore
from vmtui.runtime.manifest import host_architecture

pytestmark = pytest.mark.real


@contextlib.contextmanager
def registry(root: Path, **more: Any) -> Iterator[str]:
    """A registry that runs while the context does; yields HOST:PORT."""
    host = f"127.0.0.1:{claims.port()}"
    root.mkdir()
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}},
        "http": {"addr": host, "secret": "of the test"},
        "log": {"level": "error"},
        **more,
    }
    (root / "config.json").write_text(json.dumps(config))  # JSON is YAML
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([which("docker-registry"), "serve", root / "config.json"], stdout=log, stderr=log)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(host.partition(":")[2]))):
                break
            time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry") / "r") as address:
        yield address


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "cache")


def push(source: str, target: str, *more: str) -> None:
    argv = ["skopeo", "copy", "-q", "--dest-tls-verify=false", *more, source, f"docker://{target}"]
    subprocess.run(argv, check=True, timeout=180)


def digest_of(target: str) -> str:
    """What the registry itself calls the manifest of a tag."""
    host, _, name = target.partition("/")
    repository, _, tag = name.rpartition(":")
    accept = ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"]
    request = urllib.request.Request(
        f"http://{host}/v2/{repository}/manifests/{tag}", method="HEAD", headers={"Accept": ", ".join(accept)}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.headers["Docker-Content-Digest"])


@pytest.mark.parametrize("form", ["oci", "v2s2"])
async def test_an_image_is_pulled_as_the_registry_has_it(
    tmp_path: Path, store: ImageStore, host: str, form: str
) -> None:
    source = make_layout(tmp_path / "oci", [{"a": b"1"}, {"b": os.urandom(100)}], {"Cmd": ["/a"]})
    target = f"{host}/team/{form}:1.0"
    push(source, target, f"--format={form}")
    image = await store.ensure(target, silent)
    assert image.reference == f"docker://{target}"
    assert image.digest == digest_of(target)
    assert (Path(image.layers[0]) / "a").read_bytes() == b"1"
    assert image.config.cmd == ("/a",)
    by_digest = await store.ensure(f"docker://{host}/team/{form}:9.9@{image.digest}", silent)
    assert (by_digest.digest, by_digest.layers) == (image.digest, image.layers)


async def test_a_moved_tag(tmp_path: Path, store: ImageStore, host: str) -> None:
    target = f"{host}/moved:latest"
    push(make_layout(tmp_path / "one", [{"a": b"1"}]), target)
    first = await store.ensure(target, silent)
    push(make_layout(tmp_path / "two", [{"a": b"2"}]), target)
    assert await store.ensure(f"docker://{host}/moved", silent) == first
    assert (await store.pull(target, silent)).digest == digest_of(target) != first.digest


async def test_an_index(tmp_path: Path, store: ImageStore, host: str) -> None:
    layout = Layout(tmp_path / "oci")
    ours, theirs = layout.manifest([{"a": b"ours"}]), layout.manifest([{"a": b"1"}], architecture="s390x")
    push(layout.tag("both", layout.index({"s390x": theirs, host_architecture(): ours})), f"{host}/index:1", "--all")
    image = await store.ensure(f"{host}/index:1", silent)
    assert image.digest == ours["digest"]
    push(layout.tag("other", layout.index({"s390x": theirs})), f"{host}/index:2", "--all")
    with pytest.raises(InvalidInput, match="is not made for linux/"):
        await store.ensure(f"{host}/index:2", silent)


async def refused(store: ImageStore, cache: Path, reference: str, kind: type[Fault]) -> Fault:
    with pytest.raises(kind) as caught:
        await store.ensure(reference, silent)
    assert [str(path) for path in cache.glob("images/*/*")] == []
    assert caught.value.details
    return caught.value


async def test_what_a_registry_lacks(tmp_path: Path, store: ImageStore, host: str) -> None:
    fault = await refused(store, tmp_path / "cache", f"{host}/none:1", NotFound)
    assert fault.message == f"registry {host} has no image docker://{host}/none:1"
    assert fault.hint == f"skopeo list-tags docker://{host}/none"
    push(make_layout(tmp_path / "oci", [{"a": b"1"}]), f"{host}/some:1")
    await refused(store, tmp_path / "cache", f"{host}/some:2", NotFound)


async def test_a_registry_that_is_not_there(tmp_path: Path, store: ImageStore) -> None:
    port = claims.port()
    fault = await refused(store, tmp_path / "cache", f"127.0.0.1:{port}/a", OperationFailed)
    assert fault.message.startswith(f"registry 127.0.0.1:{port} cannot be reached")
    assert "connection refused" in fault.details
    fault = await refused(store, tmp_path / "cache", "registry.invalid/a", OperationFailed)
    assert fault.message.startswith("registry registry.invalid cannot be reached")


async def test_a_registry_that_wants_a_password(tmp_path: Path, store: ImageStore) -> None:
    # bcrypt of "secret", cost 4: the one hash that htpasswd authentication takes
    (tmp_path / "users").write_text("user:$2y$04$abcdefghijklmnopqrstuuLm5Lb8nNIPcnlVjr2PfHNFVsYzZbDJi\n")
    with registry(tmp_path / "r", auth={"htpasswd": {"realm": "r", "path": str(tmp_path / "users")}}) as host:
        fault = await refused(store, tmp_path / "cache", f"{host}/a:1", OperationFailed)
    assert fault.message == f"registry {host} does not let us read docker://{host}/a:1"
    assert fault.hint == f"skopeo login {host}"


async def test_a_registry_that_lies(tmp_path: Path, store: ImageStore) -> None:
    """A blob on its disk was changed: its bytes no longer have their digest."""
    with registry(tmp_path / "r") as host:
        push(make_layout(tmp_path / "oci", [{"a": os.urandom(5000)}]), f"{host}/a:1")
        blobs = (tmp_path / "r" / "data").rglob("data")
        largest = max(blobs, key=lambda path: path.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[-1] ^= 1
        largest.write_bytes(data)
        with pytest.raises((InvalidInput, OperationFailed)) as caught:
            await store.ensure(f"{host}/a:1", silent)
    assert "digest" in f"{caught.value.message} {caught.value.details}".lower()
    assert await store.lookup(f"{host}/a:1") is None
