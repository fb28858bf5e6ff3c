"""User namespaces made for their maps: of a file's owner to another, and of root to a root without power elsewhere."""

from __future__ import annotations

import os

from vmtui.walls import calls

EVERYBODY = (0, 0, 0xFFFF_FFFF)  # user_namespaces(7): (first one inside, the same outside, how many)
Map = tuple[int, int, int]


def make(users: Map, groups: Map) -> int:
    """A user namespace with these maps, as a descriptor. Needs root and the host's /proc. Raises OSError.

    Of a mount, `(owner on the disk, owner here, 1)`: files of the one are the other's in that mount (idmapped mounts).
    """
    told, tell = os.pipe2(os.O_CLOEXEC)
    gate, go = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go)
            calls.unshare(calls.CLONE_NEWUSER, "user")
            os.write(tell, os.readlink("/proc/self").encode())  # its number may be another in our namespace
            os.read(gate, 1)
        finally:
            os._exit(0)
    os.close(tell)
    try:
        number = os.read(told, 16).decode()
        if not number:
            raise OSError("a user namespace cannot be made (see `sysctl user.max_user_namespaces`)")
        for name, of in (("uid_map", users), ("gid_map", groups)):
            with open(f"/proc/{number}/{name}", "w") as file:
                file.write(" ".join(map(str, of)))
        return os.open(f"/proc/{number}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (told, gate, go):
            os.close(fd)
        os.waitpid(pid, 0)
