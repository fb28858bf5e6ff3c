"""Run a command in the lab: a machine with a KVM that works, cgroup v2 and vhost-net, on the host's own files.

    .venv/bin/python -m tests.lab.host -- .venv/bin/pytest -x -q tests/lab/test_lab.py
    .venv/bin/python -m tests.lab.host --timeout 60 -- sh -c 'ls -l /dev/kvm /dev/vhost-net'
    .venv/bin/python -m tests.lab.host --shell

The command runs as root in the project's directory, without input. Its stdout and stderr come out on stdout as they are
written, and its exit code is the exit code. All files of the host are there, and what is written is lost, but for what
goes to /run/lab/out (see --report). /tmp, /var/tmp and /run are empty, but for --show. There is no network.
A lab that falls or stands still is begun once more, and pytest leaves out in the next one what has passed by then.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from tests.lab.host import again, cache, system
from tests.lab.host.machine import Job, LabFailed
from vmtui.core.errors import Fault

FAILED = 125  # of the lab itself, as env(1) and timeout(1) have it


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.host", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timeout", type=float, default=480, metavar="SECONDS", help="all boots (default: 480)")
    parser.add_argument("--memory", type=int, default=4096, metavar="MIB", help="files in memory too (default: 4096)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable for the command")
    parser.add_argument("--show", action="append", default=[], type=Path, metavar="DIR", help="a directory in /tmp")
    parser.add_argument("--report", type=Path, metavar="DIR", help="where to copy what is in /run/lab/out at the end")
    parser.add_argument("--shell", action="store_true", help="a shell on this terminal; type exit to end it")
    parser.add_argument("--fetch", action="store_true", help="only fetch all kernels that tests may boot")
    parser.add_argument("command", nargs="*")
    chosen = parser.parse_args()
    try:
        if chosen.fetch:
            for kernel in cache.all_fetched():
                print(kernel.image)
            print(system.disk())
            return 0
        if not chosen.command and not chosen.shell:
            parser.error("which command?")
        cache.all_fetched()
        system.disk()
        job = Job(
            argv=tuple(chosen.command) or ("bash", "-l"),
            environment=dict(pair.split("=", 1) for pair in chosen.env),
            timeout_s=24 * 3600 if chosen.shell else chosen.timeout,
            terminal=chosen.shell,
            memory_mib=chosen.memory,
            shown=tuple(chosen.show),
            report=chosen.report,
        )
        with nullcontext() if job.terminal else cache.turn():
            return again.run(job, sys.stdout.buffer, lambda text: print(f"lab: {text}", file=sys.stderr, flush=True))
    except (Fault, LabFailed) as error:
        print(f"lab: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
