"""The lab is seen to stand still, and its job comes to its end in the next one."""

from __future__ import annotations

import io

import pytest

from tests.lab.host import again, cache
from tests.lab.host.machine import Job

pytestmark = [pytest.mark.real, pytest.mark.timeout(390)]
STANDS_STILL_ONCE = """
cd /run/lab/out
if [ -e passed ]; then
  echo again after $(cat passed)
  exit 7
fi
echo one >passed
echo -1 >/proc/sys/kernel/sched_rt_runtime_us
exec chrt -f 99 taskset -c 1 sh -c 'while :; do :; done'  # nothing else runs on that processor any more
"""


def test_a_job_outlives_its_lab() -> None:
    cache.all_fetched()
    out, said = io.BytesIO(), list[str]()
    job = Job(argv=("sh", "-c", STANDS_STILL_ONCE), timeout_s=360, still_s=20, memory_mib=1024)
    assert again.run(job, out, said.append) == 7
    assert out.getvalue().decode().replace("\r", "") == "again after one\n"
    told = said[0]
    assert told.startswith("the lab stands still, beat-")
    assert "(qemu) info lapic 1\n" in told
    assert "CPU#1" in told
    assert "an NMI ended it\n" in told
    assert "Kernel panic - not syncing: NMI" in told
    assert told.endswith("\nbegun once more, in a fresh lab: 1 passed before and are not run again")
