"""A load of reads and changes, each of which is held against the ledger."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress

from gateway import schema
from tests.faults.clients import Caller, Failed
from tests.faults.ledger import REFUSED, SLOW, Ledger, content_of, state_of, uris_of
from zapcore import messages as m
from zapcore.methods import Rpcs

DEADLINE = 3.0
"""Seconds that a call is given."""

SHORT_DEADLINE = 0.3
"""Seconds for one whose answer takes longer."""

HANG = 20.0
"""Seconds after which a call is taken to hang, however busy the machine is."""

LEAVING = 0.05
"""How likely a caller is to leave before its answer comes."""

NEVER_SENT = frozenset({"upstream_unavailable", "upstream_protocol_error"})
"""A change that is answered so has not taken effect: there was no connection for it."""

UNKNOWN = frozenset({"outcome_unknown", "deadline_exceeded"})
"""A change that is answered so may have taken effect, or not."""

OF_READS = NEVER_SENT | {"deadline_exceeded"}
"""What a read may be answered with."""


async def _in_time(call: Coroutine[None, None, None], name: str) -> None:
    try:
        async with asyncio.timeout(HANG):
            await call
    except TimeoutError:
        raise AssertionError(f"{name} hangs") from None


class Load:
    """Calls of many callers, and what became of each.

    Args:
        ledger: the backend that they all reach.
        seed: which calls are made depends on it.
        label: makes the changes' names differ from those of other loads.
    """

    def __init__(self, ledger: Ledger, seed: int, label: str) -> None:
        self.outcomes: dict[str, str] = {}
        """Of changes, by name: ok or an error's code."""
        self.reads: Counter[str] = Counter()
        self.left = 0
        """How many callers did not wait for an answer."""
        self._not_sent: set[str] = set()
        self._crossed: list[tuple[str, str]] = []
        """Changes that were answered with another's error."""
        self._ledger = ledger
        self._seed = seed
        self._label = label

    @property
    def told(self) -> str:
        """In one line."""
        changes = Counter(self.outcomes.values())
        return f"reads {dict(self.reads)}, changes {dict(changes)}, {self.left} left"

    @property
    def succeeded(self) -> int:
        """How many calls did, as far as is known."""
        return self.reads["ok"] + sum(outcome == "ok" for outcome in self.outcomes.values())

    async def run(self, callers: Iterable[Caller], calls: int) -> None:
        """Make so many calls; each caller takes the next as soon as it has its answer."""
        serials = iter(range(calls))
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(self._calls(caller, serials))

    async def _calls(self, caller: Caller, serials: Iterator[int]) -> None:
        kinds = (self._status, self._uris, self._pause, self._send, self._refused, self._slow)
        for serial in serials:
            name = f"{self._label}-{serial}"
            chances = random.Random(f"{self._seed}/{name}")  # noqa: S311
            (kind,) = chances.choices(kinds, (30, 15, 30, 20, 4, 1))
            call = kind(caller, name, chances.choice((DEADLINE, None)))
            if chances.random() < LEAVING:
                await self._left(call, name, chances.uniform(0, 0.005))
            else:
                await _in_time(call, name)

    async def _left(self, call: Coroutine[None, None, None], name: str, seconds: float) -> None:
        """The caller does not wait for its answer."""
        self.left += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await call

    # Reads.

    async def _status(self, caller: Caller, name: str, timeout: float | None) -> None:
        def right(number: int) -> bytes:
            return schema.to_json(m.StatusResponse(state_of(number)))

        await self._read(caller, Rpcs.status, timeout, _number_of_status, right)

    async def _uris(self, caller: Caller, name: str, timeout: float | None) -> None:
        def right(number: int) -> bytes:
            return schema.to_json(m.URIsResponse(uris_of(number)))

        await self._read(caller, Rpcs.uris, timeout, _number_of_uris, right)

    async def _read(
        self,
        caller: Caller,
        method: object,
        timeout: float | None,
        number_of: Callable[[bytes], int],
        right: Callable[[int], bytes],
    ) -> None:
        before = self._ledger.total
        try:
            answer = await caller.ask(method, method.request(), timeout)
        except Failed as failed:
            self.reads[failed.code] += 1
            return
        number = number_of(answer)
        assert before <= number <= self._ledger.total, "the answer is stale"
        assert answer == right(number), "the answer is wrong"
        self.reads["ok"] += 1

    # Changes.

    async def _pause(self, caller: Caller, name: str, timeout: float | None) -> None:
        if answer := await self._change(caller, Rpcs.pause_node, name, timeout):
            assert json.loads(answer)["clusterInfo"]["rootDataDir"] == name, "another's answer"

    async def _send(self, caller: Caller, name: str, timeout: float | None) -> None:
        fields = {"peer_id": "peer", "bytes": content_of(name)}
        answer = await self._change(caller, Rpcs.send_outbound_message, name, timeout, **fields)
        assert answer in (None, b'{"sent":true}')

    async def _refused(self, caller: Caller, name: str, timeout: float | None) -> None:
        await self._change(caller, Rpcs.pause_node, f"{REFUSED}-{name}", timeout)

    async def _slow(self, caller: Caller, name: str, timeout: float | None) -> None:
        await self._change(caller, Rpcs.pause_node, f"{SLOW}-{name}", SHORT_DEADLINE)

    async def _change(
        self, caller: Caller, method: object, name: str, timeout: float | None, **fields: object
    ) -> bytes | None:
        named = "name" if method is Rpcs.pause_node else "node_name"
        try:
            answer = await caller.ask(method, method.request(**{named: name}, **fields), timeout)
        except Failed as failed:
            self.outcomes[name] = failed.code
            if failed.code == "not_found" and failed.detail != f"node {name} not found":
                self._crossed.append((name, failed.detail))
            if "was not sent" in failed.detail:
                self._not_sent.add(name)
            return None
        self.outcomes[name] = "ok"
        return answer

    # Afterwards.

    def verify(self) -> None:
        """Hold what callers were told against what took effect. Nothing is under way any more."""
        effects = self._ledger.effects
        assert self._ledger.wrong == self._crossed == []
        check_changes(self.outcomes, effects)
        assert not any(effects[name] for name in self._not_sent), "told not sent, and took effect"
        refused = (self.outcomes[name] for name in self.outcomes if name.startswith(REFUSED))
        assert "ok" not in refused
        assert self.reads.keys() <= OF_READS | {"ok"}


def check_changes(outcomes: Mapping[str, str], effects: Counter[str]) -> None:
    """Hold what became of changes against how often each took effect.

    Args:
        outcomes: what the callers were told, by name: ok or an error's code.
        effects: of all changes, by name.
    """
    assert [name for name, times in effects.items() if times > 1] == [], "taken effect twice"
    times_of: defaultdict[str, set[int]] = defaultdict(set)
    for name, outcome in outcomes.items():
        times_of[outcome].add(effects[name])
    assert times_of.pop("ok") == {1}, "told to have succeeded, and did not"
    for outcome in times_of.keys() - UNKNOWN:
        assert outcome in NEVER_SENT | {"not_found"}
        assert times_of[outcome] == {0}, f"told {outcome}, and took effect"


def _number_of_status(answer: bytes) -> int:
    return int(json.loads(answer)["clusterInfo"]["networkId"])


def _number_of_uris(answer: bytes) -> int:
    return int(json.loads(answer)["uris"][0])
