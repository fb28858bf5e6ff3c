"""What the session of a role that only looks gives up for good, beside what the engine refuses it.

A second line, should a session run what it must not: nothing of the file system can be written, no process outside of
it be signalled or traced, no capability be used, no TCP connection made. What it can still do is speak to unix sockets
that its user may open, since Landlock does not cover those: there the engine's check is the only one.
"""

from __future__ import annotations

import contextlib
import os
import resource

from vmtui.walls import calls, denials, landlock

READ = landlock.READ_FILE | landlock.READ_DIR | landlock.EXECUTE
WRITE = READ | landlock.WRITE_FILE | landlock.TRUNCATE | landlock.IOCTL_DEV
WRITABLE = ("/dev/null", "/dev/tty")
CAP_DAC_READ_SEARCH = 2  # linux/capability.h
KEPT = frozenset({CAP_DAC_READ_SEARCH})  # containers' files belong to others
# Of what `denials` takes away: tools are run and ended, the host's sockets looked at.
NEEDED = frozenset(
    {
        "execve", "execveat", "fork", "vfork", "clone", "kill", "tkill", "pidfd_open", "pidfd_send_signal",
        "socket", "socketpair", "memfd_create",
    }
)  # fmt: skip


def enter() -> list[str]:
    """For this process and all that it starts; what this kernel has no wall for is named. Raises OSError.

    The process must have one thread.
    """
    missing = []
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # not permitted: then there is nothing to drop from
            calls.drop_bounding_set(KEPT)
    calls.drop_capabilities(KEPT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    version = landlock.restrict([("/", READ), *((path, WRITE) for path in WRITABLE if os.path.exists(path))])
    if version == 0:
        missing.append("landlock: not in this kernel, or not enabled")
    elif version < landlock.SCOPE_ABI:
        missing.append(f"landlock {version}: processes of the same user can be signalled")
    denials.install(NEEDED)
    return missing
