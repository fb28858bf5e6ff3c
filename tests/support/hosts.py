"""Hosts that lack something: the right to be root, a working /dev/kvm, room, a program."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from tests.support.golden import ROOT
from tests.support.refusals import Place

NOBODY = 65534
IN_A_MOUNT_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]


def without(*programs: str) -> Callable[[Place], None]:
    """A PATH of one folder with a link to every program of this host, but these."""

    def prepare(place: Place) -> None:
        folder = place.root / "programs"  # not bin: what is in the sbin beside it is found, too
        folder.mkdir()
        for directory in filter(os.path.isdir, os.environ["PATH"].split(":")):
            for entry in os.scandir(directory):
                if entry.name not in programs and not os.path.lexists(folder / entry.name):
                    (folder / entry.name).symlink_to(entry.path)
        place.environment["PATH"] = str(folder)

    return prepare


def useless_kvm(place: Place) -> None:
    """/dev/kvm is there and opens, and is none."""
    script = 'test ! -e /dev/kvm || mount --bind /dev/null /dev/kvm; exec "$@"'
    place.prefix = [*IN_A_MOUNT_NAMESPACE, script, "sh"]


def nobody(place: Place) -> None:
    """Another user, with directories of its own, to whom interpreter and checkout are shown where it may look."""
    shown = {"python": sys.base_prefix, "site": sysconfig.get_path("purelib"), "checkout": str(ROOT)}
    for name in shown:
        (place.root / name).mkdir()
    binds = "; ".join(f"mount --bind '{path}' '{place.root / name}'" for name, path in shown.items())
    user = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"
    place.prefix = [*IN_A_MOUNT_NAMESPACE, f'{binds}; exec {user} "$@"', "sh"]
    python = place.root / "python" / Path(os.path.realpath(sys.executable)).relative_to(sys.base_prefix)
    place.argv = [str(python), "-m", "vmtui"]
    home = place.root / "home"
    for folder in (home, place.folder, place.paths.state.parent, place.paths.runtime.parent):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, NOBODY, NOBODY)
    place.environment |= {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": f"{place.root / 'checkout'}:{place.root / 'site'}",
        "LD_LIBRARY_PATH": str(place.root / "python" / "lib"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def why_not(place: Place) -> str:
    """Why vmtui does not even start there, "" if it does."""
    done: subprocess.CompletedProcess[bytes] = place.vmtui("--version")
    return done.stderr.decode("utf-8", "replace").strip() if done.returncode else ""
