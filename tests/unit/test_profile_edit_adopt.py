"""Drift adopted: the profile says afterwards what was applied, and nothing is left to do but what none can say."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.fakes import open_fakes
from tests.unit.test_planner_properties import profiles
from vmtui.core.errors import ProfileInvalid
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, Spec
from vmtui.engine.adopt import Adoption, adopt
from vmtui.engine.registry import option_types
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile import edit, write
from vmtui.profile.load import load
from vmtui.profile.schema import Profile

APPLIED = """
# the lab
[network.lab]
backend = "fake"

[disk.data]
backend = "fake"
size = "1GiB"  # enough

[vm.guest]
backend = "fake"
kernel = "/k"
memory = "1G" # as little as it takes
disks = ["data"]
networks = ["lab"]
labels = { tier = "back" }

[vm.guest.fake]
seed = 3

[container.web]
backend = "fake"
image = "deb:x"
networks = ["lab"]
depends_on = ["vm/guest"]
"""


class Place:
    """A workspace in which APPLIED is applied, and its file."""

    def __init__(self, workspace: Workspace, file: Path) -> None:
        self.workspace = workspace
        self.file = file

    async def apply(self, text: str) -> None:
        self.file.write_text(text)
        plan = await self.workspace.plan(load(self.file, option_types))
        outcome = await self.workspace.apply(plan, emit=lambda event: None)
        assert outcome.result == "converged"

    async def adopted(self, text: str) -> Adoption:
        self.file.write_text(text)
        opened = write.open_(self.file)
        plan = await self.workspace.plan(load(self.file, option_types), check=False)
        return await adopt(self.workspace, opened, plan)


@pytest.fixture
async def place(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with open_fakes(Paths(*(tmp_path / name for name in ("s", "c", "r")))) as workspace:
        place = Place(workspace, tmp_path / "dev.toml")
        await place.apply(APPLIED)
        yield place


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('memory = "1G" # as little as it takes', 'memory = "2G" # as little as it takes'),
        ('labels = { tier = "back" }', 'labels = { tier = "front" }'),
        ("seed = 3", "seed = 4"),
        ('kernel = "/k"', 'kernel = "/other"'),
        ('"1GiB"  # enough', '"2GiB"  # enough'),
    ],
)
async def test_a_field_takes_the_applied_value_back(place: Place, old: str, new: str) -> None:
    adoption = await place.adopted(APPLIED.replace(old, new))
    assert adoption.text == APPLIED.replace('"1G"', '"1GiB"') if "memory" in old else adoption.text == APPLIED
    assert adoption.left.empty
    adoption.save()
    assert (await place.workspace.plan(load(place.file, option_types))).empty


async def test_what_is_new_in_the_file_goes_and_what_is_gone_from_it_comes_back(place: Place) -> None:
    text = edit.remove_resource(APPLIED, Kind.CONTAINER, "web")
    text += '\n# not yet\n[sandbox.new]\nbackend = "fake"\nmodule = "x.wat"\n'
    adoption = await place.adopted(text)
    assert adoption.text == APPLIED
    assert adoption.left.empty


async def test_a_disk_that_the_file_has_lost_comes_back(place: Place) -> None:
    text = edit.remove_resource(APPLIED, Kind.VM, "guest").replace('depends_on = ["vm/guest"]\n', "")
    adoption = await place.adopted(edit.remove_resource(text, Kind.DISK, "data"))
    assert adoption.left.empty
    assert {item.ref.short for item in adoption.profile.resources} == {
        "network/lab", "disk/data", "vm/guest", "container/web",
    }  # fmt: skip
    assert "# the lab" in adoption.text


async def test_what_no_profile_can_say_is_left(place: Place) -> None:
    web = Ref("dev", Kind.CONTAINER, "web")
    await place.workspace.act(web, Action.STOP, emit=lambda event: None)
    adoption = await place.adopted(APPLIED.replace("tier", "layer"))
    assert adoption.text == APPLIED
    assert [(change.ref, change.reason) for change in adoption.left.changes] == [(web, "it is stopped")]


async def test_what_is_gone_stays_in_the_file_while_another_needs_it(place: Place) -> None:
    guest = Ref("dev", Kind.VM, "guest")
    await place.workspace.act(guest, Action.DELETE, emit=lambda event: None)
    adoption = await place.adopted(APPLIED)
    assert adoption.difference == ""
    assert [change.ref for change in adoption.left.changes] == [guest]
    adoption = await place.adopted(APPLIED.replace('depends_on = ["vm/guest"]\n', ""))
    assert adoption.text == APPLIED  # the container was applied with that dependency, and still has it


async def test_what_contradicts_the_rest_is_refused(place: Place) -> None:
    await place.apply(APPLIED.replace('image = "deb:x"', 'image = "deb:x"\nports = ["80:80"]'))
    text = edit.remove_resource(APPLIED, Kind.CONTAINER, "web").replace(
        'kernel = "/k"', 'kernel = "/k"\nports = ["80:80"]'
    )
    adoption = await place.adopted(text)
    assert adoption.left.empty  # the guest loses the port that it was not applied with
    with pytest.raises(ProfileInvalid, match="expected a whole number"):
        await place.adopted('[vm.guest]\ncpus = "x"\n')


def said(profile: Profile) -> dict[Ref, tuple[Spec, object]]:
    return {item.ref: (item.spec, item.options) for item in profile.resources}


def text_of(profile: Profile, folder: Path) -> str:
    text = "# the profile\n"
    for item in profile.resources:
        spec = item.spec
        if isinstance(spec, ContainerSpec) and not spec.networks:
            spec = msgspec.structs.replace(spec, ports=())
        text = edit.add_resource(text, item.ref.kind, item.ref.name, spec, item.options, folder)
    return text


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(profiles(), profiles())
def test_adopted_a_profile_says_what_was_applied(first: Profile, second: Profile) -> None:
    async def run(root: Path) -> None:
        async with open_fakes(Paths(*(root / name for name in ("s", "c", "r")))) as workspace:
            place = Place(workspace, root / "prop.toml")
            await place.apply(text_of(first, root))
            applied = said(load(place.file, option_types))
            adoption = await place.adopted(text_of(second, root))
            assert adoption.left.empty, adoption.text
            assert said(adoption.profile) == applied
            assert "# the profile" in adoption.text

    with tempfile.TemporaryDirectory(prefix="vt-") as root:
        asyncio.run(run(Path(root)))
