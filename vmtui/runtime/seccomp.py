"""The default seccomp profile of the containers tools, resolved to what an OCI runtime reads.

The installed file is a template: its rules apply by architecture and by the capabilities that a container has.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from vmtui.core.errors import InvalidInput, MissingCapability

PROFILE = Path("/usr/share/containers/seccomp.json")
PACKAGE = "golang-github-containers-common"
# uname's machine as the profile names it in `arches`, and as libseccomp does in `archMap`
ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}


class _Condition(msgspec.Struct, frozen=True):
    arches: tuple[str, ...] = ()
    caps: tuple[str, ...] = ()


class _Argument(msgspec.Struct, frozen=True, rename="camel"):
    index: int
    value: int
    op: str
    value_two: int = 0


class _Rule(msgspec.Struct, frozen=True, rename="camel"):
    names: tuple[str, ...]
    action: str
    args: tuple[_Argument, ...] | None = None
    includes: _Condition = _Condition()
    excludes: _Condition = _Condition()
    errno_ret: int | None = None


class _Architecture(msgspec.Struct, frozen=True, rename="camel"):
    architecture: str
    sub_architectures: tuple[str, ...] | None = None


class _Profile(msgspec.Struct, frozen=True, rename="camel"):
    default_action: str
    syscalls: tuple[_Rule, ...]
    arch_map: tuple[_Architecture, ...] = ()
    default_errno_ret: int | None = None


def resolve(capabilities: Iterable[str], *, machine: str | None = None, profile: Path = PROFILE) -> dict[str, Any]:
    """`linux.seccomp` of config.json for a process with `capabilities`. Raises MissingCapability, InvalidInput."""
    return _resolve(frozenset(capabilities), machine or platform.machine(), profile)


@lru_cache(maxsize=32)
def _resolve(capabilities: frozenset[str], machine: str, path: Path) -> dict[str, Any]:
    try:
        profile = msgspec.json.decode(path.read_bytes(), type=_Profile)
    except FileNotFoundError:
        raise MissingCapability(f"no seccomp profile at {path}", hint=f"apt-get install {PACKAGE}") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidInput(f"seccomp profile {path}: {error}", hint=f"apt-get install --reinstall {PACKAGE}") from None
    if machine not in ARCHITECTURES:
        raise MissingCapability(f"seccomp profile {path} does not know the architecture {machine}")
    short, native = ARCHITECTURES[machine]
    resolved: dict[str, Any] = {
        "defaultAction": profile.default_action,
        "architectures": [
            native,
            *[
                sub
                for known in profile.arch_map
                if known.architecture == native
                for sub in known.sub_architectures or ()
            ],
        ],
        "syscalls": [_rule(rule) for rule in profile.syscalls if _applies(rule, short, capabilities)],
    }
    if profile.default_errno_ret is not None:
        resolved["defaultErrnoRet"] = profile.default_errno_ret
    return resolved


def _applies(rule: _Rule, architecture: str, capabilities: frozenset[str]) -> bool:
    included = (not rule.includes.arches or architecture in rule.includes.arches) and capabilities.issuperset(
        rule.includes.caps
    )
    excluded = architecture in rule.excludes.arches or not capabilities.isdisjoint(rule.excludes.caps)
    return included and not excluded


def _rule(rule: _Rule) -> dict[str, Any]:
    plain: dict[str, Any] = {"names": list(rule.names), "action": rule.action}
    if rule.errno_ret is not None:
        plain["errnoRet"] = rule.errno_ret
    if rule.args:
        plain["args"] = [
            {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op} for arg in rule.args
        ]
    return plain
