"""What was applied, as TOML."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtui.backends.fake.options import FakeOptions
from vmtui.core.backend import Desired
from vmtui.core.errors import Conflict
from vmtui.core.resource import Ref
from vmtui.core.specs import ContainerSpec, NetworkSpec, Spec, VmSpec
from vmtui.core.units import Publish, Size
from vmtui.engine.compose import compose, toml_change
from vmtui.engine.registry import option_types
from vmtui.profile.edit import toml_of
from vmtui.profile.load import loads

HERE = Path("/srv/p")


def desired(ref: str, spec: Spec, options: object = None) -> Desired[Spec]:
    return Desired(ref=Ref.parse(ref), backend="fake", spec=spec, options=options)


LAB = desired("dev/network/lab", NetworkSpec(subnet="10.1.0.0/24"))
GUEST = desired(
    "dev/vm/guest",
    VmSpec(kernel="/srv/p/k", networks=("lab", "far"), depends_on=("container/web", "vm/other")),
    FakeOptions(seed=2),
)
WEB = desired("dev/container/web", ContainerSpec(image="deb:x", networks=("lab",)), FakeOptions())


def test_one_resource() -> None:
    assert toml_of(WEB) == '[container.web]\nimage = "deb:x"\nnetworks = ["lab"]\n'
    assert toml_of(desired("dev/vm/a", VmSpec(kernel="/srv/p/k")), HERE) == '[vm.a]\nkernel = "k"\n'
    assert toml_of(desired("dev/vm/a", VmSpec(kernel="/srv/p/k"))) == '[vm.a]\nkernel = "/srv/p/k"\n'
    assert "fake = { seed = 2 }" in toml_of(GUEST)


def test_several_become_a_profile_with_the_references_among_them() -> None:
    composed = compose("copy", [GUEST, WEB, LAB], HERE)
    assert composed.text == (
        'name = "copy"\n\n'
        '[network.lab]\nsubnet = "10.1.0.0/24"\n\n'
        '[container.web]\nimage = "deb:x"\nnetworks = ["lab"]\n\n'
        '[vm.guest]\nkernel = "k"\nnetworks = ["lab"]\ndepends_on = ["container/web"]\nfake = { seed = 2 }\n'
    )
    assert [(edge.key, edge.provider.short) for edge in composed.missing] == [
        ("vm.guest.networks[1]", "network/far"),
        ("vm.guest.depends_on[1]", "vm/other"),
    ]
    assert len(loads(composed.text, HERE / "copy.toml", option_types).resources) == 3


def test_one_name_twice() -> None:
    with pytest.raises(Conflict, match="dev/network/lab and test/network/lab cannot be in one profile"):
        compose("x", [LAB, desired("test/network/lab", NetworkSpec())], HERE)


def test_acts_as_differences() -> None:
    text = compose("dev", [LAB, WEB], HERE).text
    assert toml_change(text, WEB, None, folder=HERE, name="dev").splitlines()[-4:] == [
        "-", "-[container.web]", '-image = "deb:x"', '-networks = ["lab"]',
    ]  # fmt: skip
    added = toml_change(text, None, desired("dev/vm/b", VmSpec(memory=Size(1 << 30))), folder=HERE, name="dev")
    assert added.endswith('+\n+[vm.b]\n+memory = "1GiB"\n')
    edited = desired("dev/container/web", ContainerSpec(image="deb:y", networks=("lab",), ports=(Publish(80, 80),)))
    assert toml_change(text, WEB, edited, folder=HERE, name="dev").splitlines()[-4:] == [
        '-image = "deb:x"', '+image = "deb:y"', ' networks = ["lab"]', '+ports = ["80:80"]',
    ]  # fmt: skip
    assert toml_change(text, WEB, WEB, folder=HERE, name="dev") == ""
