"""`python -m tests.support.confined JOB [UID]`: a line of JSON, how the job's process ended and what it returned."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from tests.support.confined import machine, walls
from tests.support.confined.host import Host
from vmtui.vmm.confine.fork import fork_apart
from vmtui.walls import calls

# These start in no process namespace, with all that there is.
OUTSIDE = ("wall_user", "wall_landlock", "wall_seccomp", "fatal", "less", "unprivileged", "monitor", "attached")


def run(name: str) -> dict[str, Any]:
    job = getattr(walls, name, None) or getattr(machine, name)
    host = Host()
    told, tell = os.pipe()
    pid = os.fork() if name in OUTSIDE else fork_apart()
    if pid == 0:
        try:
            os.close(told)
            os.write(tell, json.dumps(job(host)).encode())
            os._exit(0)
        except BaseException:
            os.write(tell, json.dumps(traceback.format_exc()).encode())
            os._exit(1)
    os.close(tell)
    with open(told, "rb") as file:
        said = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    host.close()
    return {"status": status, "said": json.loads(said or b"null")}


def main() -> None:
    if sys.argv[2:]:
        calls.become(int(sys.argv[2]), int(sys.argv[2]))
        calls.prctl(calls.PR_SET_DUMPABLE, 1, "dumpable")  # as after an execve, for which the user may lack the rights
    print(json.dumps(run(sys.argv[1])))


if __name__ == "__main__":
    main()
