"""A house for all tests of a file: starting a fork server takes a second."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.ssh_sessions import House, open_house
from vmtui.ssh.session import Limits


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_house() -> AsyncIterator[House]:
    async with open_house(Limits(take_back_s=20.0, hang_up_s=20.0)) as house:  # a busy machine keeps these
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(shared_house: House) -> AsyncIterator[House]:
    """With no session open, before and after."""
    shared_house.audited.clear()
    yield shared_house
    await shared_house.all_over()
