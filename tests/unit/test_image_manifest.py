"""What images say of themselves, and what is refused of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.oci import GO_ARCHITECTURE
from vmtui.core.errors import InvalidInput
from vmtui.runtime import manifest as images

HEX = "0123456789abcdef" * 4
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{HEX}", "size": 1}


def manifest(config: bytes = b"{}", layers: list[dict[str, Any]] | None = None, **more: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "config": {"mediaType": "x", "digest": images.sha256(config), "size": len(config)},
            "layers": [LAYER] if layers is None else layers,
            **more,
        }
    ).encode()


def config(**more: Any) -> bytes:
    base = {
        "architecture": images.host_architecture(),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{HEX}"]},
    }
    return json.dumps({**base, **more}).encode()


def test_a_configuration_is_read() -> None:
    data = config(
        config={
            "Env": ["A=1"],
            "Entrypoint": ["/e"],
            "Cmd": None,
            "User": "1000:1000",
            "WorkingDir": "/w",
            "StopSignal": "SIGINT",
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {"a": "b"},
            "Volumes": {"/v": {}},
            "Unknown": 1,
        }
    )
    read, diff_ids = images.read_config(data, images.read_manifest(manifest(data), "x"), "x")
    assert read == images.ImageConfig(
        env=("A=1",),
        entrypoint=("/e",),
        user="1000:1000",
        working_dir="/w",
        stop_signal="SIGINT",
        exposed_ports=("80/tcp",),
        labels={"a": "b"},
        volumes=("/v",),
    )
    assert diff_ids == (f"sha256:{HEX}",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'"' + b"\xff" * 9 + b'"', "cannot be read"),
        (b" " * (images.MAX_MANIFEST_BYTES + 1), "larger than"),
        (manifest(schemaVersion=1), "not an image"),
        (manifest(mediaType="application/vnd.oci.image.index.v1+json"), "not an image"),
        (manifest(layers=[]), "no layers"),
        (manifest(layers=[LAYER] * 500), "cannot be read"),
        (manifest(layers=[{**LAYER, "digest": "sha256:../../etc"}]), "cannot be read"),
        (manifest(layers=[{**LAYER, "digest": f"sha256:{HEX}\n"}]), "cannot be read"),
        (manifest(layers=[{**LAYER, "digest": f"sha512:{HEX * 2}"}]), "cannot be read"),
        (manifest(layers=[{**LAYER, "size": -1}]), "cannot be read"),
        (manifest(layers=[{**LAYER, "mediaType": "application/wasm"}]), "unknown type 'application/wasm'"),
        (
            manifest(layers=[{**LAYER, "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"}]),
            "may not be distributed",
        ),
        (
            manifest(layers=[{**LAYER, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}]),
            "may not be distributed",
        ),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        images.read_manifest(data, "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (config(architecture="pdp11"), "made for linux/pdp11"),
        (config(os="\x1b[2J"), "cannot be read"),
        (config(os="windows"), "made for windows/"),
        (config(rootfs={"type": "layers", "diff_ids": []}), "1 layers, but 0 diff_ids"),
        (config(rootfs={"type": "layers", "diff_ids": ["sha256:/etc"]}), "cannot be read"),
        (config(config={"Env": ["A=\0"]}), "NUL"),
        (config(config={"Env": "A"}), "cannot be read"),
    ],
)
def test_what_is_no_configuration_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        images.read_config(data, images.read_manifest(manifest(data), "x"), "x")


def test_a_damaged_configuration_is_refused() -> None:
    with pytest.raises(InvalidInput, match="damaged"):
        images.read_config(config() + b" ", images.read_manifest(manifest(config()), "x"), "x")


def test_an_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(InvalidInput, match="vax"):
        images.host_architecture()


def test_the_builder_for_tests_names_machines_alike() -> None:
    assert GO_ARCHITECTURE.items() <= images.ARCHITECTURES.items()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda of: st.lists(of) | st.dictionaries(st.sampled_from(["layers", "config", "digest", "schemaVersion"]), of),
    )
)
def test_any_json_is_a_manifest_or_a_fault(value: object) -> None:
    with pytest.raises(InvalidInput):
        images.read_manifest(json.dumps(value).encode(), "x")
