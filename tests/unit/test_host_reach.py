"""Which fields reach the host: each one is named, and whatever does not look harmless does."""

from __future__ import annotations

import msgspec
import pytest

from vmtui.backends.kvm.options import KvmOptions, Share
from vmtui.core.backend import Desired
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import SPECS, ContainerSpec, DiskSpec, NetworkMode, NetworkSpec, SandboxSpec, Spec, VmSpec
from vmtui.core.units import Mount, Publish, ReadOnlyMount, Size
from vmtui.engine import host_reach
from vmtui.engine.registry import names, option_types


@pytest.mark.parametrize("kind", SPECS)
def test_each_field_is_classified(kind: Kind) -> None:
    spec = SPECS[kind]
    named = {name for base in spec.__mro__ for name in host_reach.FIELDS.get(base, {})}
    assert set(spec.__struct_fields__) == named


def test_a_field_that_nobody_classified_reaches_it() -> None:
    class NewSpec(VmSpec, frozen=True, kw_only=True):
        passthrough: str = ""

    quiet = {"networks": ("a",)}
    assert dict(host_reach.of(NewSpec(**quiet))) == {}  # type: ignore[arg-type]
    assert dict(host_reach.of(NewSpec(passthrough="0000:01:00.0", **quiet))) == {  # type: ignore[arg-type]
        "passthrough": "it may reach the host"
    }


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(),
        NetworkSpec(subnet="10.88.7.0/24", gateway="10.88.7.1", internal=True, mtu=1400),
        NetworkSpec(subnet="10.89.0.0/24"),
        DiskSpec(size=Size(1 << 30), shrink=True),
        VmSpec(kernel="deb:linux-image-cloud-amd64", rootfs="deb:busybox-static", networks=("a",), cmdline="quiet"),
        VmSpec(disks=("a",), network_mode=NetworkMode.NONE),
        VmSpec(networks=("a",), ports=(Publish(8080, 80),)),
        ContainerSpec(image="nginx"),
        ContainerSpec(image="docker://registry.example.org:5000/a/b:c", volumes=(Mount("data", "/data"),)),
        ContainerSpec(image="docker://8.8.8.8/a", cap_drop=("ALL",), tmpfs=("/run",), user="root"),
    ],
)
def test_what_concerns_the_guest_alone(spec: Spec) -> None:
    assert dict(host_reach.of(spec)) == {}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        *((NetworkSpec(subnet=text), "subnet") for text in
          ("8.8.8.0/24", "192.168.1.0/24", "10.0.0.0/8", "10.88.0.0/14", "0.0.0.0/8", "127.0.0.0/8", "junk")),
        (DiskSpec(source="/etc/shadow", source_format="raw"), "source"),
        (VmSpec(disks=("a",)), "network_mode"),
        *((VmSpec(kernel=text, networks=("a",)), "kernel") for text in
          ("/boot/vmlinuz", "deb:../x", "deb:/etc/x", "deb:a b", "deb:", "DEB:abc", "vmlinuz")),
        (VmSpec(initrd="/boot/initrd", networks=("a",)), "initrd"),
        (VmSpec(initrd="deb:abc", networks=("a",)), "initrd"),
        (VmSpec(ports=(Publish(8080, 80), Publish(22, 22)), networks=("a",)), "ports"),
        *((ContainerSpec(image=text), "image") for text in (
            "oci:/srv/x", "dir:/srv/x", "oci-archive:/x.tar:tag", "docker-archive:/x.tar", "docker-daemon:x:y",
            "containers-storage:x", "deb:../x", "docker://localhost/x", "docker://localhost:5000/x",
            "docker://127.0.0.1:5000/x", "docker://10.0.0.1/x", "docker://169.254.169.254/x", "docker://[::1]:5000/x",
            "docker://intranet:5000/x", "docker://db.internal/x", "docker://nas.local/x", "docker://h.localdomain:5000/x",
            "docker://127.1/x", "docker://a.localhost/x", "docker://192.168.0.1:80/x", "docker://0x7f.1/x",
        )),
        (VmSpec(rootfs="oci:/srv/x", networks=("a",)), "rootfs"),
        *((ContainerSpec(image="x", volumes=(Mount("data", "/a"), Mount(source, "/b"))), "volumes") for source in
          ("/", "./x", "../x", "a/b", ".", "..")),
        (ContainerSpec(image="x", cap_add=("NET_ADMIN",)), "cap_add"),
        (SandboxSpec(module="/x.wasm"), "module"),
        (SandboxSpec(module="deb:x.wasm", volumes=(ReadOnlyMount("/", "/x", read_only=True),)), "volumes"),
    ],
)  # fmt: skip
def test_what_reaches_the_host(spec: Spec, field: str) -> None:
    assert field in dict(host_reach.of(spec))


def test_options_of_a_backend_reach_it_unless_they_are_the_default_ones() -> None:
    spec = VmSpec(networks=("a",))
    for kind in Kind:
        for name in names(kind):
            if (options := option_types(kind)[name]) is not None:
                desired = Desired(ref=Ref("a", kind, "b"), backend=name, spec=spec, options=options())
                assert list(host_reach.of_desired(desired)) == []
    for given in (KvmOptions(shares=(Share(tag="x", path="/"),)), KvmOptions(vhost="off")):
        desired = Desired(ref=Ref("a", Kind.VM, "b"), backend="kvm", spec=spec, options=given)
        assert [field.partition(".")[0] for field, _ in host_reach.of_desired(desired)] == ["kvm"]


def test_options_without_a_default_reach_it() -> None:
    class Options(msgspec.Struct):
        device: str

    desired = Desired(ref=Ref("a", Kind.VM, "b"), backend="x", spec=NetworkSpec(), options=Options(device=""))
    assert [field for field, _ in host_reach.of_desired(desired)] == ["x.device"]
