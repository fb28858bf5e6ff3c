"""Whatever a guest does, no exception leaves a device, and it works for the next driver.

VMTUI_FUZZ_OPERATIONS: how many, for each device. VMTUI_FUZZ_SEED: to do again what has failed.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.devices import SUBJECTS
from tests.fuzz.guest import Guest
from tests.support.dev_kvm import needs_kvm

OPERATIONS = int(os.environ.get("VMTUI_FUZZ_OPERATIONS", "10000"))
SEED = int(os.environ.get("VMTUI_FUZZ_SEED", "1"))
RACE_S = min(60.0, OPERATIONS / 10_000)

pytestmark = [needs_kvm, pytest.mark.timeout(180 + OPERATIONS / 500)]
each = pytest.mark.parametrize("name", sorted(SUBJECTS))


@each
def test_anything(name: str, tmp_path: Path) -> None:
    guest = Guest(SUBJECTS[name], tmp_path, Random(SEED))
    guest.bring_up()
    done = 0
    try:
        while done < OPERATIONS:
            guest.act()
            done += 1
    except BaseException as error:
        raise AssertionError(f"operation {done} with VMTUI_FUZZ_SEED={SEED}") from error
    finally:
        guest.close()
    assert guest.returned > min(OPERATIONS, 10_000) / 1000, "requests do not get through: this is the surface alone"
    assert guest.needed_reset


@each
def test_memory_that_changes_while_it_is_read(name: str, tmp_path: Path) -> None:
    """Another vCPU writes to the rings and buffers of a request that the device works on."""
    random = Random(SEED)
    guest = Guest(SUBJECTS[name], tmp_path, random)
    guest.bring_up()
    guest.loop.start()
    over = threading.Event()
    scribbler = Guest.scribble

    def scribble() -> None:
        while not over.is_set():
            scribbler(guest)

    thread = threading.Thread(target=scribble, daemon=True)
    thread.start()
    deadline = time.monotonic() + RACE_S
    try:
        while time.monotonic() < deadline:
            for _ in range(20):
                guest.send_request()
            if guest.function.needs_reset or random.random() < 0.05:
                guest.bring_up()
    finally:
        over.set()
        thread.join()
        guest.loop.stop()
        guest.close()
    assert guest.failures == []
