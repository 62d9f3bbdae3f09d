"""A trial: calls over a line with faults, twice, with a look at what the second time leaves."""

from __future__ import annotations

import logging
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest

from tests.faults.clients import Caller
from tests.faults.ledger import Ledger
from tests.faults.leftovers import holdings, nothing_beyond
from tests.faults.load import DEADLINE, Load
from tests.faults.proxy import (
    Chain,
    Delay,
    FaultProxy,
    Finish,
    Flip,
    Plan,
    Reset,
    Split,
    Stall,
    Throttle,
    Way,
)
from tests.integration.zap_helpers import eventually, serving
from zapcore import ConnectionPool

HARMLESS = (
    Plan.of(Split(1, 48), 0.16)
    | Plan.of(Split(400, 20_000), 0.16)
    | Plan.of(Delay(0.004), 0.16)
    | Plan.of(Throttle(20_000.0), 0.04)
    | Plan.of(Stall(0.05), 0.02)
)
HARMFUL = (
    Plan.of(Stall(2 * DEADLINE), 0.001)
    | Plan.of(Reset(), 0.016)
    | Plan.of(Finish(), 0.010)
    | Plan.of(Chain(Delay(0.01), Reset()), 0.008)
    | Plan.of(Chain(Delay(0.01), Finish()), 0.006)
    | Plan.of(Flip(), 0.016)
    | Plan.of(Flip(), 0.008).only(Way.UP)
)

_MOST_KEPT = 512 * 1024
"""Bytes that may be there after thousands of calls and were not before, as buffers are."""


@asynccontextmanager
async def faulty_line(seed: int) -> AsyncIterator[tuple[Ledger, FaultProxy]]:
    """A ledger behind our server, and a line to it that has no faults yet."""
    ledger = Ledger(seed)
    async with serving(ledger) as server, FaultProxy(server.address, Plan(), seed) as proxy:
        yield ledger, proxy


@dataclass
class Trial:
    """Calls over a line with faults.

    Args:
        ledger: the backend.
        proxy: the line to it.
        calling: entered for the time of the calls; gives who calls.
        seed: what they call depends on it.
        connections: how many there are over the line when nobody calls.
        faults: of the line.
    """

    ledger: Ledger
    proxy: FaultProxy
    calling: Callable[[], AbstractAsyncContextManager[Sequence[Caller]]]
    seed: int
    connections: int
    faults: Plan = HARMLESS | HARMFUL

    async def half(self, label: str, calls: int) -> Load:
        """Make so many calls under faults, and hold their outcome against the ledger."""
        load = Load(self.ledger, self.seed, label)
        struck = self.proxy.struck.total()
        async with self.calling() as callers:
            started = time.perf_counter()
            self.proxy.disturb(self.faults)
            await load.run(callers, calls)
            elapsed = time.perf_counter() - started
            self.proxy.calm()
        struck = self.proxy.struck.total() - struck
        await eventually(self._is_at_rest)
        told = f"{struck} faults, one in {1000 * elapsed / struck:.1f} ms"
        print(f"{load.told}; {told}; {self.proxy.connections} connections so far")  # noqa: T201
        load.verify()
        assert load.succeeded > calls / 4, "hardly any got through"
        return load

    def _is_at_rest(self) -> bool:
        """Whether nothing is under way, and all connections stand that should."""
        ledger = self.ledger
        return self.proxy.links == self.connections and not ledger.under_way and not ledger.streams


async def leaves_nothing(
    trial: Trial,
    pool: ConnectionPool,
    calls: int,
    log: pytest.LogCaptureFixture,
    *,
    traced: bool = False,
) -> None:
    """Run both halves. What the first one leaves may be kept for good, so the second adds nothing.

    Args:
        trial: what is run.
        pool: whose connections go over the line.
        calls: how many, in all.
        log: what is told meanwhile.
        traced: whether to count the bytes too, which takes time.
    """
    for name in ("zapcore.pool", "gateway.request"):
        log.set_level(logging.ERROR, name)  # the log would keep what is told of every fault
    await trial.half("first", calls // 2)
    await _rests(pool)
    before = holdings()
    with tracing(traced) as kept:
        await trial.half("second", calls // 2)
        await _rests(pool)
        await nothing_beyond(before)
        assert kept() < _MOST_KEPT
    # A task or future that nobody looked after would be told of, as would a defect.
    assert [each.getMessage() for each in log.records if each.levelno > logging.INFO] == []


async def _rests(pool: ConnectionPool) -> None:
    """Nobody waits for anything, or for a call that was given up."""
    assert pool.calls == 0
    await eventually(lambda: len(pool.connections) == pool.size)
    await eventually(lambda: not any(each._waiting for each in pool.connections))
    assert all(each.calls == each.load == 0 for each in pool.connections)


@contextmanager
def tracing(really: bool) -> Iterator[Callable[[], int]]:
    """Gives how many bytes the code under test has taken since and keeps; 0 where not traced."""
    if not really:
        yield lambda: 0
        return
    # What a request is decoded into is kept by the tests themselves.
    parts = ("*/tests/*", "*/_pytest/*", "*/logging/*", "<decode_*", tracemalloc.__file__)
    tests = [tracemalloc.Filter(False, part) for part in parts]

    def kept() -> int:
        found = tracemalloc.take_snapshot().filter_traces(tests).statistics("lineno")
        print(*found[:5], sep="\n")  # noqa: T201
        return sum(each.size for each in found)

    tracemalloc.start()
    try:
        yield kept
    finally:
        tracemalloc.stop()
