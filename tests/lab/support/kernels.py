"""The kernels that a test in the lab may boot: Debian's cloud and generic ones, of two suites."""

from __future__ import annotations

import pytest

from tests.lab.host import cache
from vmtui.guests.kernel import Kernel

KERNELS = [pytest.param(suite, sort, id=f"{suite}-{sort}") for suite in cache.SUITES for sort in cache.SORTS]


def kernel(suite: str = "bookworm", sort: str = "cloud") -> Kernel:
    """Its bzImage, its release and the folder of its modules. Those of package vmtui.guests.modules read it."""
    return cache.fetched(suite, sort)
