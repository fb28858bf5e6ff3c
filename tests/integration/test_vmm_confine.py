"""A machine that has been taken over, from inside: what is refused, by which wall, and what still works."""

from __future__ import annotations

import os

import pytest

from tests.support.confined import enquire

pytestmark = pytest.mark.real

NOBODY = 65534
WORKS = ("threads", "kicks", "loops", "memory", "files", "sockets", "errors", "sleep")
users = pytest.mark.parametrize("user", [None, NOBODY], ids=["root", "user"])


@users
def test_everything_is_refused(user: int | None) -> None:
    said = enquire("everything", user)
    walls = said.pop("walls")
    assert walls["namespaces"]
    assert walls["missing"] == []
    assert said.pop("others") == ["EPERM"]
    assert said.pop("import") == "ModuleNotFoundError"
    assert said.pop("setrlimit") == "ValueError"  # what Python makes of EPERM there
    assert set(said.values()) == {"EPERM"}, said


def test_what_only_an_intruder_tries_ends_the_process() -> None:
    ends = enquire("fatal")
    assert {"execve", "ptrace", "bpf", "setns", "io_uring_setup", "clone of a process"} <= set(ends)
    assert set(ends.values()) == {"SIGSYS"}, ends


@users
def test_what_a_machine_does_works(user: int | None) -> None:
    assert enquire("work", user) == {"missing": "", **dict.fromkeys(WORKS, "worked")}


@pytest.mark.skipif(not os.path.exists("/dev/kvm"), reason="no /dev/kvm")
def test_a_guest_runs() -> None:
    told, _, *after = enquire("guest")
    assert told == [0x42, 7]
    assert after == ["hlt", [0x42, 7], "hlt", [0x42, 7], "hlt"]


@users
def test_no_wall_stands_alone(user: int | None) -> None:
    for missing, said in enquire("less", user).items():
        assert "worked" not in said.values(), (missing, said)


def test_without_user_namespaces() -> None:
    said = enquire("unprivileged", NOBODY)
    (missing,) = said.pop("missing")
    assert missing.startswith("namespaces: ")
    assert set(said.values()) == {"EPERM"}, said


@users
def test_a_machine_ends_with_its_monitor(user: int | None) -> None:
    assert enquire("monitor", user) == "gone"


@users
def test_others_of_its_user_cannot_look_inside(user: int | None) -> None:
    assert enquire("attached", user) == {"ptrace": "EPERM", "memory": "EACCES", "files": "EACCES"}


def test_the_wall_of_namespaces() -> None:
    assert enquire("wall_namespaces") == {
        "open": "ENOENT",
        "create": "EROFS",
        "kill": "ESRCH",
        "connect path": "ENOENT",
        "connect abstract": "ECONNREFUSED",
        "connect tcp": "ENETUNREACH",
        "root": "",
        "new": "cgroup ipc mnt net pid uts",
    }


def test_the_wall_of_a_user_of_its_own() -> None:
    said = enquire("wall_user")
    assert said.pop("groups") == "[]"
    assert said.pop("open") == said.pop("kvm") == "EACCES"
    assert set(said.values()) == {"EPERM"}, said


def test_the_wall_against_new_privileges() -> None:
    said = enquire("wall_no_new_privs")
    assert said["before"] == 0
    assert said["after"] > 0


def test_the_wall_of_limits() -> None:
    assert enquire("wall_limits") == {
        "files": "EMFILE",
        "file": "EFBIG",
        "memory": "MemoryError",
        "threads": "RuntimeError",
        "core": "(0, 0)",
        "raise": "ValueError",
        "lock": "EPERM",
    }


def test_the_wall_of_landlock() -> None:
    said = enquire("wall_landlock")
    if said["abi"] == 0:
        pytest.skip("this kernel has no Landlock")
    assert said["write"] == "worked"  # what is open stays open
    assert {said[name] for name in ("open", "create", "list", "unlink", "execute")} == {"EACCES"}
    if said["abi"] >= 4:
        assert said["connect tcp"] == "EACCES"
    if said["abi"] >= 6:
        assert said["connect abstract"] == said["kill"] == "EPERM"


def test_the_wall_of_system_calls() -> None:
    assert set(enquire("wall_seccomp").values()) == {"EPERM"}


def test_it_is_built_in_five_milliseconds() -> None:
    best = enquire("times")
    for _ in range(30):  # a processor that others use too is slower, never faster
        if sum(best.values()) <= 5:
            return
        run = enquire("times")
        best = {phase: min(best[phase], run[phase]) for phase in best}
    raise AssertionError(best)
