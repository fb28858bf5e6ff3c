"""As whom a session runs, and what it knows of where it runs: the user of the host and the environment."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping

import msgspec

from vmtui.core.errors import OperationFailed
from vmtui.host.paths import Paths
from vmtui.ssh.session import Request
from vmtui.ssh.spawn import NO_USER

TERM = re.compile(r"[A-Za-z0-9._+-]{1,32}")
DUMB = ("", "dumb", "unknown")  # values of TERM that tell of no screen
PASSED = re.compile(r"LANG|LC_[A-Z]{1,20}|COLORTERM|NO_COLOR")
VALUE = re.compile(r"[ -~]{0,128}")
SAY_CODING = ("LANG", "LC_ALL", "LC_CTYPE")
LOCALE = "C.UTF-8"  # of who says nothing of theirs: PuTTY, dropbear, and OpenSSH without SendEnv
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """`uid` is NO_USER when a session runs as the server does."""

    environment: dict[str, str]
    uid: int = NO_USER
    gid: int = NO_USER
    groups: tuple[int, ...] = ()


def of(request: Request, server: Mapping[str, str]) -> Identity:
    """`server` is the server's environment. Raises OperationFailed: there is no such user, or it cannot become it."""
    environment = {"PATH": server.get("PATH", PATH)}
    environment |= {
        name: value for name, value in request.environment.items() if PASSED.fullmatch(name) and VALUE.fullmatch(value)
    }
    if environment.keys().isdisjoint(SAY_CODING):
        environment["LANG"] = LOCALE
    if request.size is not None:
        environment["TERM"] = request.term if TERM.fullmatch(request.term) else "dumb"
    user = request.role.user
    if user is None:
        return Identity(environment={**environment, **_own(server)})
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise OperationFailed(
            f"the role {request.role.name} runs as {user}, and there is no such user", hint=f"useradd -m {user}"
        ) from None
    if entry.pw_uid == os.geteuid():
        return Identity(environment={**environment, **_own(server)})
    if os.geteuid() != 0:
        raise OperationFailed(
            f"the role {request.role.name} runs as {user}, which only root can become", hint="sudo vmtui serve"
        )
    environment |= {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user}
    if os.path.isdir(runtime := f"/run/user/{entry.pw_uid}"):
        environment["XDG_RUNTIME_DIR"] = runtime
    groups = tuple(os.getgrouplist(user, entry.pw_gid))
    return Identity(environment=environment, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)


def has_screen(request: Request) -> bool:
    """Whether its terminal can show the panel."""
    return request.size is not None and TERM.fullmatch(request.term) is not None and request.term not in DUMB


def _own(server: Mapping[str, str]) -> dict[str, str]:
    """The server's user and workspace."""
    kept = ("HOME", "USER", "LOGNAME", "XDG_CONFIG_HOME", "TMPDIR")
    return {name: server[name] for name in kept if name in server} | Paths.from_environment().environment()
