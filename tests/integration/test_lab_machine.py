"""The lab is seen to stand still and to fall, and its job comes to its end in the next one."""

from __future__ import annotations

import io

import pytest

from tests.lab.host import again, cache
from tests.lab.host.machine import Job

pytestmark = [pytest.mark.real, pytest.mark.timeout(390)]
FALLS_TWICE = """
cd /run/lab/out
case $(cat passed 2>/dev/null) in
'')
  echo stood >passed
  echo -1 >/proc/sys/kernel/sched_rt_runtime_us
  exec chrt -f 99 taskset -c 1 sh -c 'while :; do :; done'  # nothing else runs on that processor any more
  ;;
stood)
  echo fell >>passed
  echo c >/proc/sysrq-trigger
  sleep 60
  ;;
*)
  echo again: $(cat passed)
  exit 7
  ;;
esac
"""


def test_a_job_outlives_two_labs() -> None:
    cache.all_fetched()
    out, said = io.BytesIO(), list[str]()
    job = Job(argv=("sh", "-c", FALLS_TWICE), timeout_s=360, still_s=20, memory_mib=1024)
    assert again.run(job, out, said.append) == 7
    assert out.getvalue().decode().replace("\r", "").endswith("again: stood fell\n")
    stood, fell = said
    assert "the lab stands still" in stood
    assert "(qemu) info lapic 1\n" in stood
    assert "CPU#1" in stood
    assert "sysrq triggered crash" in fell
    assert fell.endswith("2 passed before and are not run again")
