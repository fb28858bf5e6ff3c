"""A container image of busybox alone, made here, and a backend in a workspace of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.oci import Item, Value, make_layout

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    *(
        "cat",
        "chmod",
        "chown",
        "cut",
        "date",
        "dd",
        "echo",
        "env",
        "false",
        "find",
        "grep",
        "head",
        "hostname",
        "httpd",
    ),
    *("id", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount", "nc", "nproc", "od", "ping", "ps", "pwd", "readlink"),
    *("rm", "seq", "sh", "sleep", "stat", "stty", "tail", "test", "touch", "tr", "true", "tty", "umount", "wc", "wget"),
    *("yes", "sed", "sort", "sync", "time", "timeout", "uname", "unshare"),
)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv/web:/bin/sh\n"
GROUP = b"root:x:0:\nstaff:x:50:web,root\nwww:x:44:\nextra:x:60:web\n"


def busybox_layer(**more: Value) -> dict[str, Value]:
    """Files of a tiny system."""
    files: dict[str, Value] = {"bin/busybox": Item(data=BUSYBOX.read_bytes(), mode=0o755)}
    for applet in APPLETS:
        files[f"bin/{applet}"] = ("symlink", "busybox")
    files |= {
        "etc/passwd": PASSWD,
        "etc/group": GROUP,
        "tmp": Item(kind=b"5", mode=0o1777),
        "root": None,
        "srv/web": Item(kind=b"5", mode=0o750, uid=33, gid=44),
    }
    return files | more


def busybox_image(folder: Path, layers: tuple[dict[str, Value], ...] = (), **config: Any) -> str:
    """A reference to an image made in `folder`. `config` as in image-spec: Cmd, Env, User, …"""
    settings = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]} | config
    make_layout(folder, layers=[busybox_layer(), *layers], config=settings)
    return f"oci:{folder}"
