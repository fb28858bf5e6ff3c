"""The machine's process: alone in a process namespace, and gone with its monitor."""

from __future__ import annotations

import os

from vmtui.walls import calls


def fork_apart(user_namespace: int | None = None) -> int:
    """Like os.fork, by a process with one thread; the child is process 1 of a namespace of its own.

    Without root that takes a user namespace of its own; where the host forbids those it is a plain fork, and `enter`
    says later what is missing. The pid is one in the caller's namespace, to wait for as for any child. The child dies
    with its parent. As process 1 it ignores signals that it has no handler for, except SIGKILL from outside.
    `user_namespace`: a descriptor of the one to use instead, for root. Raises OSError.
    """
    gate, go = os.pipe2(os.O_CLOEXEC)
    answer, ready = os.pipe2(os.O_CLOEXEC)
    ends = {gate, go, answer, ready}
    try:
        if user_namespace is None and os.geteuid() == 0:
            pid = calls.fork_in_pid_namespace()
        else:
            pid = _fork_through_another(user_namespace)
        for end in (gate, ready) if pid else (go, answer):
            os.close(end)
            ends.remove(end)
        if pid:
            os.write(go, b"1")
            os.read(answer, 1)  # or its end
            return pid
        try:
            os.read(gate, 1)  # without root, the parent is another until then
            calls.die_with_parent()
            os.write(ready, b"1")  # fails if the parent died before it mattered
        except OSError:
            os._exit(1)
        return 0
    finally:
        for end in ends:
            os.close(end)


def _fork_through_another(user_namespace: int | None) -> int:
    """A process between the two makes the namespaces and ends: its child becomes the caller's. Else a plain fork."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    calls.prctl(calls.PR_SET_CHILD_SUBREAPER, 1, "subreaper")
    try:
        between = os.fork()
        if between == 0:
            if (pid := _fork_in_user_namespace(user_namespace)) == 0:
                return 0
            os.write(tell, b"%d" % pid)
            os._exit(0)
        os.close(tell)
        tell = -1
        said = os.read(told, 16)
        os.waitpid(between, 0)
    finally:
        calls.prctl(calls.PR_SET_CHILD_SUBREAPER, 0, "subreaper")
        os.close(told)
        if tell >= 0:
            os.close(tell)
    if not said and user_namespace is not None:
        raise OSError("cannot fork into the user namespace")
    return int(said) if said else os.fork()


def _fork_in_user_namespace(given: int | None) -> int:
    uid, gid = os.geteuid(), os.getegid()
    try:
        if given is None:
            calls.unshare(calls.CLONE_NEWUSER, "user")
            calls.map_user(uid, gid)
        else:
            calls.join(given, calls.CLONE_NEWUSER, "user")
        calls.unshare(calls.CLONE_NEWPID, "pid")
        return os.fork()
    except OSError:
        os._exit(1)  # having told nothing
