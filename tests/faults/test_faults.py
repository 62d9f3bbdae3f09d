"""Calls through a line that cuts, stalls, delays, throttles, splits and flips.

Every answer is right, or an error of the table that is true. Nothing takes effect twice, nothing
hangs, and nothing is left over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gateway import app, schema
from gateway.journal import Journal
from tests.faults.clients import Caller, OverPool, over_http
from tests.faults.ledger import REFUSED, SLOW, state_of
from tests.faults.leftovers import only_new_objects
from tests.faults.load import DEADLINE, OF_READS
from tests.faults.processes import gateway_process
from tests.faults.trial import HARMLESS, Trial, faulty_line, leaves_nothing
from tests.integration.gateway_helpers import Running, SseEvent, running_gateway, sse
from tests.integration.zap_helpers import eventually, identity_of, no_task_left
from zapcore import ConnectionPool, PoolLimits
from zapcore import messages as m

CALLERS = 24
CONNECTIONS = 3
QUICK = {"keepalive": 0.5, "keepalive_timeout": 0.5, "backoff_first": 0.005, "backoff_last": 0.05}
"""What a pool waits for, in seconds."""

TIMES = ("call_timeout", "change_timeout")


@pytest.mark.timeout(1800)
async def test_calls_over_a_pool(seed: int, long: bool, caplog: pytest.LogCaptureFixture):
    limits = PoolLimits(**QUICK, call_timeout=DEADLINE)
    us, server = identity_of("client"), identity_of("server").public
    with only_new_objects(), no_task_left() as check:
        async with (
            faulty_line(seed) as (ledger, proxy),
            ConnectionPool(proxy.address, us, server, CONNECTIONS, limits) as pool,
        ):
            callers = [OverPool(pool)] * CALLERS
            trial = Trial(ledger, proxy, lambda: nullcontext(callers), seed, CONNECTIONS)
            await leaves_nothing(trial, pool, 10_000 if long else 500, caplog, traced=long)
        await check()


async def test_a_line_that_is_only_slow_costs_no_call(seed: int, long: bool):
    us, server = identity_of("client"), identity_of("server").public
    async with (
        faulty_line(seed) as (ledger, proxy),
        ConnectionPool(proxy.address, us, server, CONNECTIONS) as pool,
    ):
        callers = [OverPool(pool)] * CALLERS
        trial = Trial(ledger, proxy, lambda: nullcontext(callers), seed, CONNECTIONS, HARMLESS * 2)
        load = await trial.half("only", 3_000 if long else 200)
    assert load.reads.keys() == {"ok"}
    failed = {name: code for name, code in load.outcomes.items() if code != "ok"}
    assert all(name.startswith((REFUSED, SLOW)) for name in failed), failed
    assert proxy.connections == CONNECTIONS


@pytest.mark.timeout(1800)
async def test_calls_and_a_stream_through_the_gateway(
    seed: int, long: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    limits = app._pool_limits
    monkeypatch.setattr(app, "_pool_limits", lambda settings: replace(limits(settings), **QUICK))
    settings = {"connections": CONNECTIONS, **dict.fromkeys(TIMES, f"{DEADLINE}s")}
    with only_new_objects(), no_task_left() as check:
        async with (
            faulty_line(seed) as (ledger, proxy),
            running_gateway(proxy, **settings) as running,
        ):
            # One that is full from the start, or it would grow up to its limit.
            running.gateway.feed.journal = Journal(max_events=0)
            trial = Trial(ledger, proxy, lambda: clients_of(running), seed, CONNECTIONS)
            pool = running.gateway.pool
            await leaves_nothing(trial, pool, 10_000 if long else 500, caplog, traced=long)
        await check()


@asynccontextmanager
async def clients_of(running: Running) -> AsyncIterator[Sequence[Caller]]:
    """Clients that call, and one that reads the stream of states all the while."""
    address = f"127.0.0.1:{running.port}"
    async with over_http(address, CALLERS) as callers, following(running.client):
        yield callers
    await eventually(lambda: running.gateway.feed.readers == 0)


@asynccontextmanager
async def following(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Read the stream of states; it has some at the beginning, and again at the end."""
    states = 0

    async def follow() -> None:
        nonlocal states
        number = 0
        async with sse(client, interval="100ms") as reader:
            while True:
                update = await reader.next()
                number = checked(update, number)
                states += update.type == "status"

    task = asyncio.get_running_loop().create_task(follow())
    try:
        await eventually(lambda: states or task.done())
        yield
        before = states
        await eventually(lambda: states > before + 1 or task.done())
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError), ended


def checked(update: SseEvent, least: int) -> int:
    """Check one event of a stream under faults; the number of its state, or the one before."""
    if update.type != "status":
        assert update.type == "error", update
        assert update.data["code"] in OF_READS, update
        return least
    number = int(update.data["clusterInfo"]["networkId"])
    assert number >= least, "an old state"
    assert update.data == json.loads(schema.to_json(m.StatusResponse(state_of(number))))
    return number


@pytest.mark.timeout(1800)
async def test_calls_through_a_gateway_process(seed: int, long: bool, tmp_path: Path):
    """Its files and its memory are after the last part as they were before it."""
    times = [f"--{name.replace('_', '-')}={DEADLINE}s" for name in TIMES]
    async with (
        faulty_line(seed) as (ledger, proxy),
        gateway_process(proxy.address, tmp_path, "--connections", CONNECTIONS, *times) as gateway,
    ):

        def calling():
            return over_http(gateway.address, CALLERS)

        trial = Trial(ledger, proxy, calling, seed, CONNECTIONS)
        calls = 5_000 if long else 150
        rests = []
        for label in ("first", "second", "third") if long else ("first", "second"):
            await trial.half(label, calls)
            rests.append(await gateway.at_rest(CONNECTIONS))
        files, memory = zip(*rests, strict=True)
        print(*(f"{size / 1e6:.2f} MB" for size in memory), sep=", then ")  # noqa: T201
        assert files[-1] == files[0]
        # What faults leave of the heap differs, so that is compared with the most there was.
        assert memory[-1] < (1.05 if long else 1.15) * max(memory[:-1])
        await gateway.stops()
