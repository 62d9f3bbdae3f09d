"""A million calls: the gateway needs no more memory and no more files after them than before."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.clients import OverHttp, over_http
from tests.faults.processes import GatewayProcess, gateway_process, netrunner_process

CALLS = 1_000_000
WARM_UP = 20_000
ROUND = 50_000
CLIENTS = 32
CONNECTIONS = 2
MOST_MEMORY = 90_000_000
"""Bytes."""


def requests(number: int) -> Iterator[tuple[str, str, bytes, int]]:
    """Verb, target, body and the right status: mostly plain reads, and some of all else.

    Whatever can differ from request to request does, so that what is kept by name is seen.
    """
    chances = random.Random(number)  # noqa: S311
    for serial in itertools.count():
        name = f"n-{number}-{serial}"
        kinds = (
            ("GET", "/v1/status", b"", 200),
            ("GET", "/v1/uris", b"", 200),
            ("GET", f"/v1/status?timeout=3.{serial:09}s", b"", 200),
            ("POST", f"/v1/nodes/{name}/pause", b"", 200),
            ("GET", f"/v1/nodes/{name}", b"", 404),
            ("GET", f"/{name}", b"", 404),
            ("POST", "/v1/nodes", f'{{"{name}": 1}}'.encode(), 422),
            ("POST", "/v1/control/status", b"{}", 200),
        )
        yield from chances.choices(kinds, (80, 8, 3, 3, 2, 1, 2, 1))


class Soak:
    """Calls, and a word on them every now and then."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._requests = [requests(number) for number in range(CLIENTS)]
        self._started = time.monotonic()
        self.done = 0
        self.files: list[Counter[str]] = []
        """That were open after each round."""

    async def calls(self, count: int) -> int:
        """Make so many; the memory when they are done and their clients are gone, in bytes."""
        async with (
            over_http(self._gateway.address, CLIENTS) as clients,
            asyncio.TaskGroup() as group,
        ):
            for client, coming in zip(clients, self._requests, strict=True):
                group.create_task(self._work(client, coming, count // CLIENTS))
        files, memory = await self._gateway.at_rest(CONNECTIONS)
        self.files.append(files)
        self.done += count
        rate = self.done / (time.monotonic() - self._started)
        told = f"{self.done} calls, {rate:.0f} per second, {memory / 1e6:.2f} MB"
        print(told, flush=True)  # noqa: T201
        return memory

    async def _work(
        self, client: OverHttp, coming: Iterator[tuple[str, str, bytes, int]], count: int
    ) -> None:
        for verb, target, body, right in itertools.islice(coming, count):
            status, answer = await client.fetch(verb, target, body)
            assert status == right, (verb, target, status, answer)


@pytest.mark.long_only
@pytest.mark.timeout(7200)
async def test_a_million_calls_leave_the_memory_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with (
        netrunner_process(tmp_path) as netrunner,
        gateway_process(netrunner.address, tmp_path, "--connections", CONNECTIONS) as gateway,
    ):
        soak = Soak(gateway)
        await soak.calls(WARM_UP)
        with capsys.disabled():
            before = await soak.calls(WARM_UP)
            after = [await soak.calls(ROUND) for _ in range(CALLS // ROUND)]
        effects = Counter(netrunner.effects.read_text().split())
        assert max(effects.values()) == 1
        await gateway.stops()
    assert all(files == soak.files[0] for files in soak.files)
    assert max(before, *after) <= MOST_MEMORY
    assert after[-1] <= 1.05 * before
