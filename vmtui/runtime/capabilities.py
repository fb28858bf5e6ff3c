"""The capabilities of containers: a small default, what a spec adds and drops, and never ambient or inheritable."""

from __future__ import annotations

from collections.abc import Sequence

from vmtui.core.errors import InvalidInput

ALL = "ALL"
# Podman's default (containers-common, containers.conf(5) default_capabilities).
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
# include/uapi/linux/capability.h, in the order of their numbers
KNOWN = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST"),
    *("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"),
    *("CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE"),
    *("CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE"),
    *("CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM"),
    *("CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)


def resolve(add: Sequence[str], drop: Sequence[str]) -> tuple[str, ...]:
    """The set that results, sorted. "ALL" drops or adds every one; what is added by name survives drop = ["ALL"].

    Raises InvalidInput (no such capability).
    """
    added, dropped = ({_name(word) for word in words} for words in (add, drop))
    base = set() if ALL in dropped else set(KNOWN if ALL in added else DEFAULT)
    return tuple(sorted((base | added - {ALL}) - (dropped - {ALL})))


def _name(word: str) -> str:
    upper = word.upper()
    name = upper if upper == ALL or upper.startswith("CAP_") else f"CAP_{upper}"
    if name != ALL and name not in KNOWN:
        raise InvalidInput(f"there is no capability {word!r}", hint="man 7 capabilities")
    return name
