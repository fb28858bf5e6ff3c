"""A machine of one's own: namespaces in which one test is alone with the kernel, and which it can reboot.

Network, mounts, processes and /run are its own; files and cgroups are the host's. So what was there before and after
can be compared in full, and profiles run as they are, whoever else works on the same host.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from tests.support.cli import Cli
from tests.support.hostview import HostView
from vmtui.backends.tap.lock import ROOT as TAP
from vmtui.core.resource import Ref
from vmtui.host.paths import Paths
from vmtui.runtime.cgroups import Cgroup

ROOT = Path(__file__).resolve().parents[2]
TOOL_TIMEOUT_S = 90.0
OF_A_WORKSPACE = frozenset({"workspace", "lock", "state.db", "state.db-wal", "state.db-shm"})  # what an empty one keeps
TOOLS = ("ip -j link", "ip -j addr", "ip -j route", "ip netns", "nft -j list ruleset", "cat /proc/mounts",
         "cat /proc/sys/net/ipv4/ip_forward")  # fmt: skip
# A new sysfs shows the new network; the cgroups below the old one move over. Of the second proc nothing is hidden: the
# kernel wants to see such a one before a user namespace may mount its own. SIGCHLD is ignored: orphans need no wait().
INIT = """
set -e
for at in $(cut -d' ' -f2 /proc/mounts | grep '^/tmp/'); do umount --lazy "$at" || :; done  # of others, who come and go
mount -t tmpfs -o mode=0755 run /run
mount --move /sys/fs/cgroup /mnt
mount -t sysfs sysfs /sys
mount --move /mnt /sys/fs/cgroup
ip link set lo up
echo 0 >/proc/sys/net/ipv4/ip_forward
echo "$1" >/run/boot_id
mkdir /run/proc
mount -t proc proc /run/proc
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
echo up
exec env --ignore-signal=CHLD sleep infinity
"""


class Machine:
    """Ends, with all that runs in it, when it is closed, or when we die. `cgroups` are the names that it may use."""

    def __init__(self) -> None:
        self.cgroups: set[str] = set()
        self._boot()

    def _boot(self) -> None:
        unshare = ["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        init = ["sh", "-c", INIT, "init", str(uuid.uuid4())]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *unshare, *init], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            assert stdout.readline() == "up\n", "no machine of its own"
        (child,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._init = int(child)

    def close(self) -> None:
        """The kernel ends all processes with the first; cgroups outlive theirs, and are removed by name."""
        init = os.pidfd_open(self._init)
        try:
            self._process.kill()
            self._process.wait()
            assert select.select([init], [], [], TOOL_TIMEOUT_S)[0], "its processes do not end"
        finally:
            os.close(init)
        for name in self.cgroups:
            asyncio.run(Cgroup(name).end())

    def reboot(self) -> None:
        """As by a power failure: only files are left, and of those none in /run."""
        self.close()
        self._boot()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inside(self, *argv: str, folder: Path = ROOT) -> list[str]:
        """The command line that runs `argv` in it."""
        enter = ["nsenter", f"--target={self._init}", "--net", "--mount", "--pid", "--ipc", "--"]
        return [*enter, "env", "-C", str(folder), *argv]

    def run(self, *argv: str, stdin: str = "", timeout: float = TOOL_TIMEOUT_S) -> str:
        """Its stdout. Raises AssertionError with what it said."""
        done = subprocess.run(
            self.inside(*argv), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{argv} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def sh(self, script: str) -> str:
        return self.run("sh", "-ec", script)

    def words(self) -> dict[str, str]:
        """What the tools say of it, byte for byte."""
        return {tool: self.sh(tool) for tool in TOOLS}

    def view(self, *directories: Path) -> HostView:
        """All that it has, of the cgroups those that it may use, and the files in these directories."""
        said = self.run(sys.executable, "-m", __name__, *map(str, directories))
        sections = {name: frozenset(lines) for name, lines in json.loads(said).items()}
        sections["cgroups"] = frozenset(line for line in sections["cgroups"] if Path(line).name in self.cgroups)
        return HostView(sections)


class Site(Cli):
    """`vmtui` as a program on such a machine, in a workspace of its own; only the cache is shared."""

    def __init__(self, machine: Machine, cache: Path) -> None:
        self.machine = machine
        self.root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))  # short: unix socket paths
        paths = Paths(self.root / "s" / "vmtui", cache, Path("/run/vmtui"))
        paths.state.mkdir(parents=True)
        (paths.state / "workspace").write_text(secrets.token_hex(4))
        (self.root / "t").mkdir()
        super().__init__(paths, self.root)
        self.environment["TMPDIR"] = str(self.root / "t")

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root)

    def argv(self, *args: str) -> list[str]:
        return self.machine.inside(*super().argv(*args), folder=self.folder)

    def python(self, module: str, *args: str, timeout: float) -> str:
        """Run another module of the project there; its stdout."""
        done = subprocess.run(
            self.machine.inside(sys.executable, "-m", module, *args),
            env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{module} {' '.join(args)} failed\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def token(self, ref: str) -> str:
        """Also tells the machine that the resource may be there."""
        token = Ref.parse(ref).token((self.paths.state / "workspace").read_text())
        self.machine.cgroups.add(f"vmtui-{token}")
        return token

    def view(self) -> HostView:
        """All of the machine and of the workspace, but for what an empty workspace keeps."""
        seen = self.machine.view(self.paths.state, self.root / "t", self.paths.runtime, TAP)
        keeps = {str(self.paths.state / name) for name in OF_A_WORKSPACE}
        return HostView({**seen.sections, "files": seen.sections["files"] - keeps})


if __name__ == "__main__":
    taken = HostView.take(map(Path, sys.argv[1:]))
    print(json.dumps({name: sorted(lines) for name, lines in taken.sections.items()}))
