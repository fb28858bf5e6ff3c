"""Back-ends as a monitor has them: confined, in a process with one thread. `python -m ... JOB FOLDER`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmtui.vmm.backends.directory import Directory
from vmtui.vmm.backends.program import END_S, BackEnd
from vmtui.vmm.backends.storage import Storage
from vmtui.vmm.devices.vhost_user.blk import VhostUserBlk
from vmtui.vmm.devices.vhost_user.connection import Connection
from vmtui.vmm.loop import Loop

ROOT = Path(__file__).parents[2]
UID = 0x7FFF_0003
PATIENCE_S = 60.0


def enquire(job: str, folder: Path) -> Any:
    """What a job said. Fails if it raised."""
    argv = [sys.executable, "-m", "tests.support.supervised_backends", job, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Monitor:
    """A loop in this thread, and what the back-end's owner hears."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop("monitor", self._failed)
        self.folder = folder
        self.log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.connections: list[tuple[socket.socket, bool]] = []
        self.ends: list[str] = []

    def _failed(self, _: str, error: BaseException) -> None:
        raise error

    def connected(self, connection: socket.socket, clean: bool) -> None:
        self.connections.append((connection, clean))

    def storage(self, path: Path, image_format: str = "qcow2") -> Storage:
        return Storage(
            "blk0",
            str(self.folder),
            self.log,
            self.loop,
            path=str(path),
            image_format=image_format,
            uid=UID if os.geteuid() == 0 else None,
            connected=self.connected,
            ended=self.ends.append,
        )

    def directory(self, path: Path) -> Directory:
        return Directory(
            "fs0",
            str(self.folder),
            self.log,
            self.loop,
            path=str(path),
            connected=self.connected,
            ended=self.ends.append,
        )

    def run_until(self, holds: Callable[[], object]) -> None:
        """Let the loop run."""
        deadline = time.monotonic() + PATIENCE_S

        def look() -> None:
            if holds() or time.monotonic() > deadline:
                self.loop.stop()
            else:
                self.loop.after(0.01, look)

        self.loop._ending = False
        look()
        self.loop.run()
        assert holds(), self.ends


def spoken_to(connection: socket.socket) -> bool:
    """Whether it is a back-end that is there."""
    Connection(connection).negotiate(0)
    return True


def image(folder: Path) -> Path:
    path = folder / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M"], check=True)
    return path


def _is_alone(back_end: BackEnd) -> bool:
    """It has a pid of ours, and no socket is left for anybody else to connect to."""
    return back_end.pid is not None and not list(Path(back_end._path).parent.glob("*.vhost"))


def storage(folder: Path) -> dict[str, Any]:
    monitor = Monitor(folder)
    back_end = monitor.storage(image(folder))
    first = back_end.start()
    said: dict[str, Any] = {"first": spoken_to(first), "alone": _is_alone(back_end), "missing": back_end.missing}
    for number in (signal.SIGKILL, signal.SIGTERM):
        assert back_end.pid is not None
        os.kill(back_end.pid, number)
        before = len(monitor.connections)
        monitor.run_until(lambda: len(monitor.connections) > before)  # noqa: B023
        assert spoken_to(monitor.connections[-1][0])
    said["clean"] = [clean for _, clean in monitor.connections]
    back_end.replace()
    monitor.run_until(lambda: len(monitor.connections) == 3)
    said["again"] = spoken_to(monitor.connections[-1][0])
    assert back_end.pid is not None
    os.kill(back_end.pid, signal.SIGSTOP)
    back_end.replace()
    monitor.run_until(lambda: len(monitor.connections) == 4)
    assert spoken_to(monitor.connections[-1][0])  # only then does it know what to do with a signal
    began = time.monotonic()
    said["ends"] = monitor.ends
    pid = back_end.pid
    back_end.close()
    said["gone"] = not Path(f"/proc/{pid}").exists()
    said["at once"] = time.monotonic() - began < END_S
    return said


def resize(folder: Path) -> dict[str, Any]:
    monitor = Monitor(folder)
    path = image(folder)
    back_end = monitor.storage(path)
    connection = back_end.start()
    loop = Loop("disk", monitor._failed)
    device = VhostUserBlk("blk0", loop, connection, durable=False, lost=print, back=print)
    back_end.resize(16 << 20)
    device.resized(16 << 20)
    said: dict[str, Any] = {"capacity": device.capacity_bytes}
    try:
        back_end.resize(1)
    except OSError as error:
        said["refused"] = str(error)
    device.close()
    back_end.close()
    try:
        back_end.resize(32 << 20)
    except OSError as error:
        said["over"] = str(error)
    info = subprocess.check_output(["qemu-img", "info", "--output=json", str(path)])
    return {**said, "size": json.loads(info)["virtual-size"]}


def broken(folder: Path) -> dict[str, Any]:
    """A daemon that ends at once is tried again and again, less and less often."""
    monitor = Monitor(folder)
    path = image(folder)
    path.write_bytes(b"not an image")
    back_end = monitor.storage(path)
    back_end.start()
    monitor.run_until(lambda: len(monitor.ends) == 4)
    delay = back_end._delay_s
    back_end.close()
    return {"ends": monitor.ends, "delay_s": delay, "log": (folder / "log").read_text()}


def directory(folder: Path) -> dict[str, Any]:
    """virtiofsd ends with its connection, and another takes its place."""
    monitor = Monitor(folder)
    (folder / "shared").mkdir()
    back_end = monitor.directory(folder / "shared")
    connection = back_end.start()
    said: dict[str, Any] = {"first": spoken_to(connection), "missing": back_end.missing}
    connection.close()
    monitor.run_until(lambda: monitor.connections)
    said["again"] = spoken_to(monitor.connections[0][0])
    back_end.close()
    return {**said, "ends": len(monitor.ends)}


def main() -> None:
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
