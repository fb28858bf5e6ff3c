"""Where vmtui keeps things, by the XDG base directory specification."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """The three roots of one workspace.

    `state` survives reboots (database, records, disks, volumes, logs), `cache` can be deleted at any time (kernels,
    layers, compiled modules), `runtime` is gone after a reboot (sockets, pid files). Unix socket paths are limited
    to 107 bytes, so `runtime` is kept short and sockets are named by a token, never by a resource's name.
    """

    state: Path
    cache: Path
    runtime: Path

    @classmethod
    def from_environment(cls) -> Paths:
        """XDG_STATE_HOME, XDG_CACHE_HOME and XDG_RUNTIME_DIR; root without the last gets /run."""
        home = Path.home()
        state = Path(os.environ.get("XDG_STATE_HOME") or home / ".local/state")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
        fallback = "/run" if os.geteuid() == 0 else f"/tmp/vmtui-{os.geteuid()}"
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or fallback)
        return cls(state / "vmtui", cache / "vmtui", runtime / "vmtui")

    def environment(self) -> dict[str, str]:
        """The variables that make a child process find this same workspace."""
        return {
            "XDG_STATE_HOME": str(self.state.parent),
            "XDG_CACHE_HOME": str(self.cache.parent),
            "XDG_RUNTIME_DIR": str(self.runtime.parent),
        }

    def make(self) -> None:
        """Create the roots, private to the user. Raises OSError."""
        for root in (self.state, self.cache, self.runtime):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)


def config_dir() -> Path:
    """Where a person keeps settings and themes, by XDG_CONFIG_HOME."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "vmtui"


def data_dir(name: str) -> Path:
    """A directory that ships with vmtui (`themes`, `profiles`): in a wheel `_data/NAME`, in a checkout the root's."""
    package = Path(__file__).resolve().parent.parent
    bundled = package / "_data" / name
    return bundled if bundled.is_dir() else package.parent / name


def program() -> str:
    """The `vmtui` script that belongs to the running interpreter, for printed hints and for spawned commands."""
    return str(Path(sysconfig.get_path("scripts")) / "vmtui")
