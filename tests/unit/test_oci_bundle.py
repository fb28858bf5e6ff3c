"""config.json: valid by the runtime specification's own schema, and what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.core.errors import InvalidInput
from vmtui.core.specs import ContainerSpec
from vmtui.core.units import Size
from vmtui.runtime import bundle, capabilities
from vmtui.runtime.manifest import ImageConfig
from vmtui.runtime.seccomp import PROFILE
from vmtui.runtime.users import User

SCHEMA = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")
needs_profile = pytest.mark.skipif(not PROFILE.exists(), reason="apt-get install golang-github-containers-common")
IMAGE = ImageConfig(cmd=("/bin/sh",), env=("PATH=/bin", "LANG=C"))


def config(spec: ContainerSpec, image: ImageConfig = IMAGE, **place: Any) -> Any:
    settings: dict[str, Any] = {"user": User(), "id_base": 1 << 28, **place}
    placed = bundle.Placement(rootfs="/mnt", hostname="box", cgroup="vmtui-0123456789", **settings)
    return json.loads(bundle.config_json(spec, image, placed))


def schema_errors(document: Any) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    referencing = pytest.importorskip("referencing", reason="pip install jsonschema")
    if not SCHEMA.is_dir():
        pytest.skip("apt-get install golang-github-opencontainers-specs-dev")
    files = {path.name: json.loads(path.read_text()) for path in SCHEMA.glob("*.json")}
    for content in files.values():
        content.pop("id", None)  # draft 4's: the files refer to each other by name
    resources = [
        (name, referencing.Resource.from_contents(content, default_specification=referencing.jsonschema.DRAFT4))
        for name, content in files.items()
    ]
    registry: Any = referencing.Registry().with_resources(resources)
    validator = jsonschema.Draft4Validator({"$ref": "config-schema.json"}, registry=registry)
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(document)]


@needs_profile
@pytest.mark.parametrize(
    ("spec", "place"),
    [
        (ContainerSpec(image="x"), {}),
        (ContainerSpec(image="x"), {"id_base": None}),
        (
            ContainerSpec(
                image="x",
                memory=Size(64 << 20),
                cpus=1.5,
                tty=True,
                read_only=True,
                tmpfs=("/run", "/tmp:size=64m,mode=700"),
                cap_add=("SYS_ADMIN",),
                environment={"A": "b"},
            ),
            {
                "binds": (bundle.Bind(source="/srv/binds/0", target="/data", read_only=True),),
                "user": User(uid=33, gid=44, groups=(60,), home="/srv"),
                "annotations": {"org.vmtui.mark": "vmtui:ab:p/container/c"},
            },
        ),
    ],
)
def test_it_is_valid(spec: ContainerSpec, place: dict[str, Any]) -> None:
    assert schema_errors(config(spec, **place)) == []


def test_the_schema_finds_faults() -> None:
    assert schema_errors({"ociVersion": "1.0.2", "process": {"cwd": 3}})


@needs_profile
def test_nothing_is_inherited_and_nothing_gained() -> None:
    made = config(ContainerSpec(image="x"))
    held = made["process"]["capabilities"]
    assert held["inheritable"] == held["ambient"] == []
    assert held["bounding"] == held["effective"] == held["permitted"] == sorted(capabilities.DEFAULT)
    assert made["process"]["noNewPrivileges"] is True
    other = config(ContainerSpec(image="x"), user=User(uid=1000))["process"]["capabilities"]
    assert other["effective"] == other["permitted"] == []
    assert other["bounding"] == sorted(capabilities.DEFAULT)


@needs_profile
def test_limits_and_namespaces() -> None:
    linux = config(ContainerSpec(image="x", memory=Size(1 << 24), cpus=0.25, pids_limit=7))["linux"]
    assert linux["resources"]["memory"] == {"limit": 1 << 24, "swap": 1 << 24}
    assert linux["resources"]["cpu"] == {"period": 100000, "quota": 25000}
    assert linux["resources"]["pids"] == {"limit": 7}
    kinds = {"pid", "network", "ipc", "uts", "mount", "cgroup", "user"}
    assert {namespace["type"] for namespace in linux["namespaces"]} == kinds
    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": 1 << 28, "size": 65536}]
    linux = config(ContainerSpec(image="x"), id_base=None, swap_accounted=False)["linux"]
    assert "uidMappings" not in linux
    assert "memory" not in linux["resources"]


@needs_profile
def test_mounts_below_one_another_come_later() -> None:
    binds = (bundle.Bind(source="/b/0", target="/data/deep/er"), bundle.Bind(source="/b/1", target="/data"))
    mounts = config(ContainerSpec(image="x", tmpfs=("/data/deep",)), binds=binds)["mounts"]
    assert [mount["destination"] for mount in mounts[-3:]] == ["/data", "/data/deep", "/data/deep/er"]
    assert mounts[0]["destination"] == "/proc"


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, ["/e", "c"]),
        (None, ("d",), ["/e", "d"]),
        (("/f",), None, ["/f"]),
        (("/f",), ("d",), ["/f", "d"]),
        ((), ("d",), ["d"]),
    ],
)
def test_the_command(entrypoint: Any, command: Any, expected: list[str]) -> None:
    image = ImageConfig(entrypoint=("/e",), cmd=("c",))
    assert bundle.command(ContainerSpec(image="x", entrypoint=entrypoint, command=command), image) == expected


@pytest.mark.parametrize("image", [ImageConfig(), ImageConfig(cmd=("",)), ImageConfig(cmd=("a\0b",))])
def test_no_command(image: ImageConfig) -> None:
    with pytest.raises(InvalidInput):
        bundle.command(ContainerSpec(image="x"), image)


@pytest.mark.parametrize(
    "text", ["run", "/run:exec,suid", "/run:size=9z", "/run:size=1m,defaults", "/a\0b", ":size=1m"]
)
def test_tmpfs_options_are_few(text: str) -> None:
    with pytest.raises(InvalidInput):
        bundle.check_tmpfs((text,))


@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=8), st.lists(st.text(max_size=50), max_size=8)
)
def test_any_environment_is_taken_or_refused(wanted: dict[str, str], given_by_image: list[str]) -> None:
    image = ImageConfig(env=tuple(given_by_image))
    try:
        pairs = bundle.environment(ContainerSpec(image="x", environment=wanted), image, "box", "/")
    except InvalidInput:
        return
    assert all("=" in pair[1:] and "\0" not in pair for pair in pairs)
    names = [pair.partition("=")[0] for pair in pairs]
    assert len(names) == len(set(names))
    assert {f"{name}={value}" for name, value in wanted.items()} <= set(pairs)


@pytest.mark.parametrize(
    "variables", [{"A": "x" * (128 << 10)}, {f"A{n}": "x" * 100_000 for n in range(12)}, {"": "x"}, {"A=B": "x"}]
)
def test_an_environment_that_no_kernel_takes(variables: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="environment"):
        bundle.checked_environment(variables, "image")


@pytest.mark.parametrize("folder", ["relative", "/a\0b", "../.."])
@needs_profile
def test_a_working_directory_is_absolute(folder: str) -> None:
    with pytest.raises(InvalidInput):
        config(ContainerSpec(image="x", working_dir=folder))
