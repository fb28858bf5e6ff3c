"""Whether what has no condition is up: seen for a while, whenever its clock may have begun."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from vmtui.core.backend import ExecRequest, ExecSession, LogLine
from vmtui.core.errors import OperationFailed
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Exit, Kind, Ref, Status
from vmtui.core.specs import ContainerSpec
from vmtui.engine import readiness

WEB = Ref("t", Kind.CONTAINER, "web")
SPEC = ContainerSpec(backend="oci", image="x")


class Seen:
    """A host on which a container was started some time ago; it has ended when it is looked at once more."""

    def __init__(self, started_s_ago: float, *, ends: bool) -> None:
        self.looks = 0
        self._started_at = time.time() - started_s_ago
        self._ends = ends

    async def inspect(self, ref: Ref) -> Status:
        self.looks += 1
        if self._ends and self.looks > 1:
            return Status(ref=ref, backend="oci", phase=Phase.EXITED, exit=Exit(code=3, reason=""))
        return Status(ref=ref, backend="oci", phase=Phase.RUNNING, started_at=self._started_at)

    async def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        for line in list[LogLine]():
            yield line

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        raise AssertionError


async def test_who_is_about_to_end_is_not_up_though_its_start_took_long() -> None:
    with pytest.raises(OperationFailed, match="ended with code 3 before it was ready"):
        await readiness.wait(Seen(2.0, ends=True), WEB, SPEC, seen="", timeout=None)


async def test_it_is_watched_for_a_moment_unless_it_has_long_been_up() -> None:
    fresh, old = Seen(2.0, ends=False), Seen(60.0, ends=False)
    for host in (fresh, old):
        assert (await readiness.wait(host, WEB, SPEC, seen="", timeout=None)).phase is Phase.RUNNING
    assert fresh.looks > 1
    assert old.looks == 1
