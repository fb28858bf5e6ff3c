"""The contract of sandboxes, with real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contract import workloads
from tests.contract.subject import GREETING, LATER, Lab, Subject
from tests.support import wat
from vmtui.backends.wasm.backend import WasmBackend
from vmtui.core.backend import Desired
from vmtui.core.specs import SandboxSpec, Spec

LONG = wat.module(
    f"""{wat.say(1024, GREETING + chr(10))}
    (call $sleep_ms (i64.const 1200))
    {wat.say(1100, LATER + chr(10))}
    (loop (call $sleep_ms (i64.const 200)) br 0)""",
    data=wat.text(1024, GREETING + "\n") + wat.text(1100, LATER + "\n"),
)
ENDING = wat.module("(call $sleep_ms (i64.const 500)) (call $proc_exit (i32.const 3))")


def _file(lab: Lab, name: str, content: str) -> str:
    path: Path = lab.folder / name
    path.write_text(content)
    return str(path)


class WasmSubject(Subject):
    backend = WasmBackend
    boot_s: ClassVar[float] = 1.0

    async def spec(self, lab: Lab) -> Spec:
        return SandboxSpec(module=_file(lab, "long.wat", LONG))

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        return lab.want(lab.ref("impossible"), SandboxSpec(module=_file(lab, "broken.wat", "(module (funk))")))

    async def ending(self, lab: Lab) -> Desired[Any]:
        return lab.want(lab.ref("ending"), SandboxSpec(module=_file(lab, "ending.wat", ENDING)))


@pytest.mark.real
class TestWasm(
    workloads.RunnableContract,
    workloads.KillableContract,
    workloads.PausableContract,
    workloads.HasLogsContract,
    workloads.LogFilesContract,
    workloads.MeasurableContract,
):
    subject = WasmSubject()
