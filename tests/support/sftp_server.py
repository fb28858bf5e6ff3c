"""`python -m tests.support.sftp_server FOLDER IMAGE`: SFTP on stdin and stdout, over a folder as a volume and an image.

What is noted goes to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from vmtui.core.backend import FileTree
from vmtui.core.resource import Kind, Ref
from vmtui.ssh.sftp import serve
from vmtui.ssh.sftp_files import Files
from vmtui.ssh.sftp_tree import Held, Tree, Volume

Note = Callable[[Volume, str], None]


def files(folder: str, image: str, note: Note, held: Held | None = None) -> Files:
    """`/dev/container/web/data` is the folder, `/dev/disk/root/disk.qcow2` the image."""
    web, root = Ref("dev", Kind.CONTAINER, "web"), Ref("dev", Kind.DISK, "root")
    disk = FileTree(name="disk.qcow2", path=image, image=True)
    return Files(
        Tree(
            [
                Volume(web, FileTree(name="data", path=folder)),
                Volume(root, disk) if held is None else Volume(root, disk, held),
            ]
        ),
        note,
    )


if __name__ == "__main__":
    with files(sys.argv[1], sys.argv[2], lambda volume, message: print(volume.ref, message, file=sys.stderr)) as made:
        sys.exit(serve(made, 0, 1))
