"""Where one container's files are."""

from __future__ import annotations

import msgspec

from vmtui.core.backend import Context
from vmtui.core.resource import Ref
from vmtui.host.files import write_atomic
from vmtui.host.process import boot_id
from vmtui.runtime.cgroups import Cgroup, Hierarchy
from vmtui.runtime.conmon import Files
from vmtui.runtime.manifest import ImageConfig
from vmtui.runtime.oci_runtime import Containers, Runtime


class PinnedImage(msgspec.Struct, frozen=True, kw_only=True):
    """The image that a container was made from, as it was then: a start needs no registry."""

    reference: str
    digest: str
    config: ImageConfig
    layers: tuple[str, ...]


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """How a container was started; of this boot only. Says how, never whether it runs."""

    boot: str
    runtime: Runtime
    id_base: int | None = None
    shared_ids_because: str = ""  # why there is no user namespace although one was wanted


class Places:
    """The paths and host objects of one container, all found by its name alone.

    The resource directory survives a reboot: record, image, changes, log. The runtime directory holds the bundle, the
    state of the OCI runtime and conmon's files.
    """

    def __init__(self, context: Context, ref: Ref, trees: tuple[Hierarchy, ...] | None = None) -> None:
        self.ref = ref
        self.resource = context.resource_dir(ref)
        self.runtime = context.runtime_dir(ref)
        self.name = f"vmtui-{ref.token(context.workspace)}"  # of the container and its cgroup: our mark on both
        self.image = self.resource / "image.json"
        self.writable = self.resource / "changes"
        self.etc = self.resource / "etc"
        self.log = self.resource / "log"
        self.old_log = self.resource / "log.1"
        self.oom = self.resource / "oom"  # conmon writes it beside the log
        self.state = self.runtime / "state.json"
        self.stopping = self.runtime / "stopping"
        self.runtime_root = self.runtime / "oci"
        self.execs = self.runtime / "exec"
        self.conmon = Files(self.runtime, self.name)
        self.cgroup = Cgroup(self.name, trees)

    def read_image(self) -> PinnedImage | None:
        try:
            return msgspec.json.decode(self.image.read_bytes(), type=PinnedImage)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_image(self, image: PinnedImage) -> None:
        write_atomic(self.image, msgspec.json.encode(image))

    def read_state(self) -> RunState | None:
        """How it was started in this boot, None if it was not."""
        try:
            state = msgspec.json.decode(self.state.read_bytes(), type=RunState)
        except (OSError, msgspec.MsgspecError):
            return None
        return state if state.boot == boot_id() else None

    def write_state(self, state: RunState) -> None:
        write_atomic(self.state, msgspec.json.encode(state))

    def containers(self, state: RunState) -> Containers:
        return Containers(state.runtime, self.runtime_root)
