"""The server is killed and started again, many times, under load: reads and streams come back."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.faults.clients import Failed, OverHttp, over_http
from tests.faults.load import OF_READS, check_changes
from tests.faults.processes import NetrunnerProcess, gateway_process, netrunner_process
from tests.integration.gateway_helpers import client_for, sse
from tests.integration.zap_helpers import eventually
from zapcore import messages as m
from zapcore.methods import Rpcs

READERS = CHANGERS = 4
PAUSE = 0.02
"""Seconds between two calls of one caller."""


@dataclass
class Traffic:
    """Readers, changers and a reader of the stream; each notes what it was answered."""

    answered: dict[int, float] = field(default_factory=dict)
    """When each server process, by its id, was first seen to answer a read."""
    streamed: Counter[int] = field(default_factory=Counter)
    """States of the stream, by the process that they tell of."""
    reads: Counter[str] = field(default_factory=Counter)
    changes: dict[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """How many changes are known to have succeeded."""
        return sum(outcome == "ok" for outcome in self.changes.values())

    async def read(self, client: OverHttp) -> None:
        while True:
            try:
                answer = await client.ask(Rpcs.status, m.StatusRequest(), None)
            except Failed as failed:
                self.reads[failed.code] += 1
            else:
                cluster = json.loads(answer)["clusterInfo"]
                assert len(cluster["nodeInfos"]) == 5
                self.answered.setdefault(cluster["pid"], time.monotonic())
                self.reads["ok"] += 1
            await asyncio.sleep(PAUSE)

    async def change(self, client: OverHttp, label: str) -> None:
        for serial in itertools.count():
            name = f"{label}-{serial}"
            try:
                answer = await client.ask(Rpcs.pause_node, m.PauseNodeRequest(name), None)
            except Failed as failed:
                self.changes[name] = failed.code
            else:
                assert json.loads(answer)["clusterInfo"]["rootDataDir"] == name
                self.changes[name] = "ok"
            await asyncio.sleep(PAUSE)

    async def follow(self, client: httpx.AsyncClient) -> None:
        async with sse(client, interval="100ms") as reader:
            while True:
                update = await reader.next()
                if update.type == "status":
                    self.streamed[update.data["clusterInfo"]["pid"]] += 1
                else:
                    assert update.type in ("error", "restart"), update

    async def flows(self, pid: int) -> None:
        """Wait until the server process is seen to answer reads, changes and the stream."""
        reads, changed = self.reads["ok"], self.changed
        await eventually(lambda: pid in self.answered and self.streamed[pid] > 1)
        await eventually(lambda: self.reads["ok"] > reads + 10 and self.changed > changed + 10)


async def killed_again_and_again(
    netrunner: NetrunnerProcess, traffic: Traffic, times: int, away: float, seed: int
) -> list[float]:
    """Kill and start the server; seconds from each return to the first read.

    Args:
        netrunner: the server.
        traffic: what runs meanwhile.
        times: how often.
        away: seconds that it is away at most, beside the time that a start takes.
        seed: the moments depend on it.
    """
    chances, waits = random.Random(seed), []  # noqa: S311
    await traffic.flows(netrunner.pid)
    for _ in range(times):
        await asyncio.sleep(chances.uniform(0, 3 * PAUSE))  # any moment of a call's life will do
        await netrunner.kill()
        await asyncio.sleep(chances.uniform(0, away))
        await netrunner.start()
        await traffic.flows(netrunner.pid)
        waits.append(traffic.answered[netrunner.pid] - netrunner.ready)
    return waits


@pytest.mark.timeout(900)
async def test_reads_and_streams_come_back_and_no_change_is_made_twice(
    tmp_path: Path, seed: int, long: bool
):
    traffic = Traffic()
    async with (
        netrunner_process(tmp_path) as netrunner,
        # Less than a restart takes, so that calls fail for want of a connection too.
        gateway_process(netrunner.address, tmp_path, "--acquire-timeout", "200ms") as gateway,
    ):
        async with (
            client_for(gateway.url) as client,
            over_http(gateway.address, READERS + CHANGERS) as callers,
        ):
            work = [traffic.follow(client)]
            work += [traffic.read(caller) for caller in callers[:READERS]]
            work += [
                traffic.change(caller, f"{number}")
                for number, caller in enumerate(callers[READERS:])
            ]
            tasks = [asyncio.get_running_loop().create_task(each) for each in work]
            try:
                times, away = (50, 2.0) if long else (5, 0.0)
                waits = await killed_again_and_again(netrunner, traffic, times, away, seed)
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
        await gateway.stops()

    told = f"{statistics.median(waits):.3f} s in the median, {max(waits):.3f} s at most"
    print(f"the first read after {told}; {dict(traffic.reads)}")  # noqa: T201
    effects = Counter(netrunner.effects.read_text().split())
    check_changes(traffic.changes, effects)
    assert traffic.reads.keys() <= OF_READS | {"ok"}
    if long:
        assert max(waits) < 1.0
