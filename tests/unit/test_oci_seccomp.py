"""The seccomp template, resolved by capabilities and architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmtui.core.errors import InvalidInput, MissingCapability
from vmtui.runtime import capabilities, seccomp

TEMPLATE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": None, "includes": {}, "excludes": {}},
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {"arches": ["arm64"]}, "excludes": {}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 16, "valueTwo": 0, "op": "SCMP_CMP_NE"}],
            "excludes": {"caps": ["CAP_AUDIT_WRITE"]},
        },
    ],
}


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "seccomp.json"
    path.write_text(json.dumps(TEMPLATE))
    return path


def rules(resolved: dict[str, Any]) -> list[tuple[str, str]]:
    return [(rule["names"][0], rule["action"].removeprefix("SCMP_ACT_")) for rule in resolved["syscalls"]]


def test_by_capability(template: Path) -> None:
    few = seccomp.resolve((), machine="x86_64", profile=template)
    assert rules(few) == [("read", "ALLOW"), ("bpf", "ERRNO"), ("socket", "ALLOW")]
    assert few["defaultErrnoRet"] == 38
    assert few["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert few["syscalls"][1] == {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    assert few["syscalls"][2]["args"] == [{"index": 0, "value": 16, "valueTwo": 0, "op": "SCMP_CMP_NE"}]
    many = seccomp.resolve(("CAP_SYS_ADMIN", "CAP_AUDIT_WRITE"), machine="x86_64", profile=template)
    assert rules(many) == [("read", "ALLOW"), ("bpf", "ALLOW")]


def test_by_architecture(template: Path) -> None:
    arm = seccomp.resolve((), machine="aarch64", profile=template)
    assert ("arm", "ALLOW") in rules(arm)
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64"]
    with pytest.raises(MissingCapability, match="pdp11"):
        seccomp.resolve((), machine="pdp11", profile=template)


def test_a_missing_or_damaged_profile(tmp_path: Path) -> None:
    with pytest.raises(MissingCapability) as missing:
        seccomp.resolve((), profile=tmp_path / "none.json")
    assert missing.value.hint.startswith("apt-get install ")
    damaged = tmp_path / "damaged.json"
    damaged.write_text('{"defaultAction": 3}')
    with pytest.raises(InvalidInput, match="damaged"):
        seccomp.resolve((), profile=damaged)


@pytest.mark.skipif(not seccomp.PROFILE.exists(), reason=f"apt-get install {seccomp.PACKAGE}")
def test_the_installed_profile() -> None:
    resolved = seccomp.resolve(capabilities.DEFAULT, machine="x86_64")
    allowed = {
        name
        for rule in resolved["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
        for name in rule["names"]
    }
    assert {"read", "execve", "clone", "chroot", "arch_prctl"} <= allowed
    assert not {"bpf", "kexec_load", "init_module", "open_by_handle_at", "acct", "settimeofday", "iopl"} & allowed
    assert {key for rule in resolved["syscalls"] for key in rule} <= {
        "names",
        "action",
        "args",
        "errnoRet",
    }
