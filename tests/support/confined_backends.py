"""Back-ends that run confined, and what they answer; a machine as its monitor sees it.

`python -m tests.support.confined_backends JOB FOLDER [UID]` prints what a job, a function of this module, returned.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmtui.vmm.confine.backend import Started, start_storage, start_virtiofsd
from vmtui.vmm.confine.enter import enter
from vmtui.vmm.confine.fork import fork_apart
from vmtui.vmm.confine.room import Share
from vmtui.walls import calls

ROOT = Path(__file__).parents[2]
UID = 0x7FFF_0002
STORAGE_DAEMON = "/usr/bin/qemu-storage-daemon"
VIRTIOFSD = next((path for path in ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd") if os.path.exists(path)), "")
GET_FEATURES = struct.pack("<III", 1, 1, 0)  # vhost-user: request, flags (version 1), size
PROTOCOL_FEATURES = 1 << 30


def enquire(job: str, folder: Path, user: int | None = None) -> Any:
    """What a job returned, run as root or another user. Fails if it raised."""
    argv = [sys.executable, "-m", "tests.support.confined_backends", job, str(folder)]
    argv += [] if user is None else [str(user)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Monitor:
    """The other end of a storage daemon's QMP."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        self._file = connection.makefile("rwb")
        assert "QMP" in json.loads(self._file.readline())
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> str:
        """What it says of it: an error's text, or "done"."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "event" not in answer:
                return str(answer["error"]["desc"]) if "error" in answer else "done"

    def add(self, **options: Any) -> str:
        return self("blockdev-add", **{"node-name": f"n{time.monotonic_ns()}", **options})


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


@contextmanager
def spoken_to(path: Path) -> Iterator[bool]:
    """Whether who listens there speaks vhost-user. It is connected for as long as that."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(GET_FEATURES)
        with client.makefile("rb") as answers:
            yield bool(struct.unpack("<IIIQ", answers.read(20))[3] & PROTOCOL_FEATURES)


def features(path: Path) -> bool:
    with spoken_to(path) as spoken:
        return spoken


def facts(pid: int) -> dict[str, Any]:
    """What the kernel says of a process."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user")
    return {
        **{name: lines[name].split()[0] for name in ("Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")},
        "groups": lines["Groups"].split(),
        "core": next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core" in line).split()[
            4
        ],
        "new": [
            name for name in names if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
        ],
        "mounts": [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()],
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


@contextmanager
def log(folder: Path) -> Iterator[int]:
    fd = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def end(started: Started) -> int:
    """How it ended when it was asked to."""
    os.kill(started.pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])


def start(folder: Path, image: Path, backing: Path) -> tuple[Started, Monitor]:
    listener = listen(folder / "socket")
    ours, theirs = socket.socketpair()
    argv = [STORAGE_DAEMON, "--blockdev", f"driver=file,node-name=file,filename={image}"]
    argv += ["--blockdev", "driver=qcow2,node-name=disk,file=file"]
    argv += [
        "--export",
        f"type=vhost-user-blk,id=e,node-name=disk,addr.type=fd,addr.str={listener.fileno()},writable=on",
    ]
    argv += ["--chardev", f"socket,id=m,fd={theirs.fileno()}", "--monitor", "chardev=m"]
    with log(folder) as output, listener, theirs:
        started = start_storage(
            argv,
            shares=(Share(str(image), writable=True), Share(str(backing), writable=False)),
            keep=(listener.fileno(), theirs.fileno()),
            uid=UID if os.geteuid() == 0 else None,
            log=output,
        )
    return started, Monitor(ours)


def images(folder: Path) -> tuple[Path, Path]:
    base, top, other = folder / "base.qcow2", folder / "deep" / "top.qcow2", folder / "other.raw"
    top.parent.mkdir()
    for words in ([base, "8M"], ["-F", "qcow2", "-b", "../base.qcow2", top], ["-f", "raw", other, "1M"]):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *map(str, words)], check=True)
    for path in (base, top, other):
        path.chmod(0o600)
    return top, base


def storage(folder: Path) -> dict[str, Any]:
    top, base = images(folder)
    owner = top.stat().st_uid
    started, monitor = start(folder, top, base)
    try:
        return {
            "missing": started.missing,
            "spoken": [features(folder / "socket") for _ in range(2)],
            "resize": monitor("block_resize", **{"node-name": "disk", "size": 16 << 20}),
            "shadow": monitor.add(driver="file", filename="/etc/shadow", **{"read-only": True}),
            "other": monitor.add(driver="file", filename=str(folder / "other.raw")),
            "backing": monitor.add(driver="file", filename=str(base)),
            "program": monitor.add(driver="file", filename="/usr/bin/env"),
            "tcp": monitor.add(driver="nbd", server={"type": "inet", "host": "127.0.0.1", "port": "9"}),
            "unix": monitor.add(driver="nbd", server={"type": "unix", "path": str(folder / "socket")}),
            "facts": facts(started.pid),
            "owner": top.stat().st_uid == owner,
            "ended": end(started),
            "size": json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", top]))["virtual-size"],
            "log": (folder / "log").read_text().strip(),
        }
    finally:
        shutil.rmtree(top.parent)


def overlay(folder: Path) -> dict[str, Any]:
    """On a file system without idmapped mounts, and with images of another user."""
    calls.unshare(calls.CLONE_NEWNS, "mount")
    calls.mount("none", "/", None, calls.MS_REC | calls.MS_PRIVATE)
    for name in ("lower", "upper", "work", "merged"):
        (folder / name).mkdir()
    options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    calls.mount("overlay", str(folder / "merged"), "overlay", 0, options)
    top, base = images(folder / "merged")
    os.chown(top, 1234, 1234)
    os.chown(base, 1234, 1234)
    started, monitor = start(folder / "merged", top, base)
    return {
        "resize": monitor("block_resize", **{"node-name": "disk", "size": 16 << 20}),
        "uid": facts(started.pid)["Uid"],
        "capabilities": facts(started.pid)["CapEff"],
        "ended": end(started),
    }


def orphan(folder: Path) -> list[str]:
    """Whether each sort of back-end ends with the process that started it."""
    top, base = images(folder)
    said = []
    for name in ("storage", "virtiofsd"):
        told, tell = os.pipe()
        if (pid := os.fork()) == 0:
            started = start(folder, top, base)[0] if name == "storage" else share(folder)
            os.write(tell, str(started.pid).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        started_pid = int(os.read(told, 16))
        os.waitpid(pid, 0)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{started_pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        said.append("alive" if Path(f"/proc/{started_pid}").exists() else "gone")
        (folder / "socket").unlink()
    return said


def broken(folder: Path) -> list[str]:
    """What is said of what cannot be started."""
    said = []
    (folder / "program").write_text("#!/bin/sh\n")
    for argv, path in (
        (["/usr/bin/no-such-program"], folder),
        ([str(folder / "program")], folder),
        ([STORAGE_DAEMON], folder / "absent"),
    ):
        try:
            with log(folder) as output:
                start_storage(argv, shares=(Share(str(path), writable=True),), keep=(), uid=None, log=output)
        except OSError as error:
            said.append(str(error))
    return said


def share(folder: Path) -> Started:
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    (shared / "file").write_text("")
    listener = listen(folder / "socket")
    argv = [VIRTIOFSD, f"--fd={listener.fileno()}"]
    argv += ["-f", "-o", f"source={shared}"] if "qemu" in VIRTIOFSD else [f"--shared-dir={shared}"]
    with log(folder) as output, listener:
        return start_virtiofsd(argv, shared=Share(str(shared), writable=True), keep=(listener.fileno(),), log=output)


def virtiofsd(folder: Path) -> dict[str, Any]:
    started = share(folder)
    try:
        with spoken_to(folder / "socket") as spoken:  # it ends with its connection
            (child,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
            return {
                "missing": started.missing,
                "spoken": spoken,
                "outer": facts(started.pid),
                "inner": facts(int(child)),
                "root": sorted(os.listdir(f"/proc/{child}/root")),
            }
    finally:
        os.kill(started.pid, signal.SIGKILL)
        os.waitpid(started.pid, 0)


def machine(_: Path) -> dict[str, Any]:
    """A machine, seen from its monitor."""
    told, tell = os.pipe()
    if (pid := fork_apart()) == 0:
        enter(UID if os.geteuid() == 0 else None, file_bytes=1 << 20)
        os.write(tell, b"1")
        time.sleep(60)
    os.read(told, 1)
    try:
        return facts(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> None:
    job, folder = globals()[sys.argv[1]], Path(sys.argv[2])
    if sys.argv[3:]:
        user = int(sys.argv[3])
        os.chown(folder, user, user)
        calls.become(user, user)
        calls.prctl(calls.PR_SET_DUMPABLE, 1, "dumpable")  # as after an execve
    print(json.dumps(job(folder)))


if __name__ == "__main__":
    main()
