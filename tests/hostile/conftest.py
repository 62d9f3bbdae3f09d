"""What the tests with hostile peers and backends share: nothing may reach the event loop's ear."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio


@pytest_asyncio.fixture(autouse=True)
async def heard() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop was told of: failures that nobody awaited, or that a callback raised."""
    loop = asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    yield told
    gc.collect(1)  # a failed task tells so when it goes; all that is older has had its turn
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert told == []
