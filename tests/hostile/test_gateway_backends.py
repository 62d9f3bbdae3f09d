"""The same backends as HTTP clients see them: each answer is an error of the table."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.hostile.misbehaving import (
    FAILURES,
    HEAVY,
    STREAMS,
    Behaviour,
    answering,
    failing_after,
    no_answers,
    raising,
    state,
    wrong_answers,
    yielding,
)
from tests.integration.gateway_helpers import (
    Backend,
    Running,
    document,
    is_problem,
    ndjson,
    operations,
    running_gateway,
    sse,
)
from tests.integration.zap_helpers import eventually, no_task_left, serving, soon
from zapcore import messages
from zapcore.methods import METHODS

FAST, CAREFUL = "/v1/status", "/v1/status?x=1"
"""The same route, on the two ways that a request may take."""


class Switched:
    """Does what it was told last, whatever is called. Ping is always answered."""

    def __init__(self) -> None:
        self.behave: Behaviour = answering(None)
        self.stream: Behaviour = yielding()

    def backend(self) -> Backend:
        handlers: dict[str, Behaviour] = {
            row.attribute: self._stream if row.streaming else self._call for row in METHODS.values()
        }
        return Backend(**{**handlers, "ping": self._ping})

    async def _ping(self, request: object) -> messages.PingResponse:
        return messages.PingResponse(7)

    def _call(self, request: object) -> Any:
        return self.behave(request)

    def _stream(self, request: object) -> Any:
        return self.stream(request)


@asynccontextmanager
async def behind_a_gateway(**settings: object) -> AsyncIterator[tuple[Running, Switched]]:
    """Nothing is left when all is closed, and the gateway saw nothing that it did not expect."""
    switched = Switched()
    with no_task_left() as check:
        async with (
            serving(switched.backend()) as server,
            running_gateway(server, **settings) as running,
        ):
            yield running, switched
            assert running.gateway.pool.calls == 0
            await is_well(running)
        await check()


async def is_well(running: Running) -> None:
    assert (await running.client.get("/v1/ping")).json() == {"pid": 7}
    assert (await running.client.get("/readyz")).status_code == 200


# Calls.


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_failing_backend_is_a_problem_on_either_way(long: bool) -> None:
    async with behind_a_gateway() as (running, switched):
        for name, switched.behave in FAILURES.items():
            if name in HEAVY and not long:
                continue
            for path in (FAST, CAREFUL):
                is_problem(await running.client.get(path), 502, "upstream_error", "Status")
            paused = await running.client.post("/v1/nodes/n/pause")
            is_problem(paused, 502, "upstream_error", "PauseNode")
        old = await running.client.post("/v1/control/status", json={})
        assert old.status_code == 500


async def test_an_answer_of_the_wrong_type_is_a_problem(long: bool) -> None:
    async with behind_a_gateway() as (running, switched):
        kinds = [*no_answers(messages.StatusResponse), *wrong_answers(messages.StatusResponse)]
        for number, (_, answer) in enumerate(kinds if long else kinds[::3]):
            switched.behave = answering(answer)
            path = (FAST, CAREFUL, "/v1/nodes", "/v1/nodes/n")[number % 4]
            is_problem(await running.client.get(path), 502, "upstream_error", "Status")
        switched.behave = answering(messages.StatusResponse(messages.ClusterInfo(pid=8)))
        assert (await running.client.get(FAST)).json()["clusterInfo"]["pid"] == 8


def example(schema: dict[str, Any]) -> Any:
    """What the document says may be sent, with nothing but what must be there."""
    if "$ref" in schema:
        return example(document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "examples" in schema:
        return schema["examples"][0]
    if schema["type"] == "array":
        return [example(schema["items"])]
    properties = schema["properties"]
    return {name: example(properties[name]) for name in schema.get("required", ())}


async def ask(running: Running, verb: str, path: str, operation: dict[str, Any]) -> httpx.Response:
    """Send what the document says."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    sent = {} if body is None else {"json": example(body["schema"])}
    return await running.client.request(verb, re.sub(r"{\w+}", "n", path), **sent)


@pytest.mark.timeout(600)
async def test_a_failing_backend_is_a_problem_on_every_route(long: bool) -> None:
    rpcs = set()
    async with behind_a_gateway() as (running, switched):
        for switched.behave in FAILURES.values() if long else [FAILURES["another message"]]:
            for (verb, path), operation in operations().items():
                rpc = operation.get("x-zap", {}).get("rpc")
                if rpc in (None, "Ping", "StreamStatus"):
                    continue
                response = await ask(running, verb, path, operation)
                is_problem(response, 502, "upstream_error", rpc)
                rpcs.add(rpc)
    assert rpcs == METHODS.keys() - {"Ping", "StreamStatus"}


async def test_failures_side_by_side_are_each_told() -> None:
    async with behind_a_gateway() as (running, switched):
        switched.behave = raising(ValueError("boom"))
        paths = [FAST, CAREFUL, "/v1/uris", "/v1/nodes"] * 10
        for response in await soon(asyncio.gather(*map(running.client.get, paths))):
            assert response.json()["detail"] == "handler panic: boom"


class Waiting:
    """Answers when the gate opens."""

    def __init__(self, answer: object) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self.ended = 0
        self._answer = answer

    async def __call__(self, request: object) -> object:
        self.begun += 1
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        return self._answer


async def test_a_backend_that_never_answers_is_a_deadline_and_holds_up_nobody() -> None:
    async with behind_a_gateway(call_timeout="0.1s", change_timeout="0.1s") as (running, switched):
        switched.behave = never = Waiting(None)
        for path in (FAST, CAREFUL, "/v1/nodes"):
            is_problem(await running.client.get(path), 504, "deadline_exceeded", "Status")
            await is_well(running)
        paused = await running.client.post("/v1/nodes/n/pause")
        is_problem(paused, 504, "deadline_exceeded", "PauseNode")
        await is_well(running)
        assert never.begun == 4
        switched.behave = answering(messages.StatusResponse())
        assert (await running.client.get(FAST)).status_code == 200
    assert never.ended == 4


async def test_an_answer_that_comes_late_is_given_to_nobody() -> None:
    async with behind_a_gateway(call_timeout="0.1s") as (running, switched):
        switched.behave = late = Waiting(messages.StatusResponse(messages.ClusterInfo(pid=1)))
        is_problem(await running.client.get(FAST), 504, "deadline_exceeded", "Status")
        switched.behave = answering(messages.StatusResponse(messages.ClusterInfo(pid=2)))
        late.gate.set()
        await eventually(lambda: late.ended)
        for path in (FAST, CAREFUL):
            assert (await running.client.get(path)).json()["clusterInfo"]["pid"] == 2


async def test_an_answer_whose_http_client_left_is_given_to_nobody() -> None:
    async with behind_a_gateway() as (running, switched):
        switched.behave = late = Waiting(messages.StatusResponse(messages.ClusterInfo(pid=1)))
        for path in (FAST, CAREFUL):
            call = asyncio.create_task(running.client.get(path))
            await eventually(lambda: late.begun > late.ended)
            call.cancel()
            await asyncio.wait([call])
            late.gate.set()
            await eventually(lambda: late.begun == late.ended)
            late.gate.clear()
        switched.behave = answering(messages.StatusResponse(messages.ClusterInfo(pid=2)))
        assert (await running.client.get(FAST)).json()["clusterInfo"]["pid"] == 2
        await eventually(lambda: running.gateway.pool.calls == 0)


async def test_the_log_tells_of_it_once_and_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "correct-horse-battery-staple"  # noqa: S105
    async with behind_a_gateway() as (running, switched):
        switched.behave = FAILURES["another message"]
        added = {"name": "n", "nodeConfig": secret, "chainConfigs": {"c": secret}}
        response = await running.client.post("/v1/nodes", json=added)
        is_problem(response, 502, "upstream_error", "AddNode")
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert [each.getMessage() for each in errors] == ["AddNode failed in the backend"]
    assert not any(secret in str(vars(each)) for each in caplog.records if "httpx" not in each.name)


# Streams.


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_stream_that_breaks_is_told_and_goes_on_when_it_can() -> None:
    async with behind_a_gateway() as (running, switched):
        switched.behave = answering(messages.StatusResponse(state().cluster_info))
        for broken in STREAMS.values():
            switched.stream = broken
            async with sse(running.client, interval="100ms") as reader:
                error = await reader.until(lambda event: event.type == "error")
                assert (error.data["code"], error.data["status"]) == ("upstream_error", 502)
                assert error.data["rpc"] == "StreamStatus"
                switched.stream = endless
                told = await reader.until(lambda event: event.type == "status")
                assert told.data["clusterInfo"]["healthy"]
            await eventually(lambda: running.gateway.feed.readers == 0)


async def endless(request: object) -> AsyncIterator[object]:
    while True:
        yield state()
        await asyncio.sleep(0.01)


async def test_a_stream_that_breaks_is_told_in_lines_too() -> None:
    async with behind_a_gateway() as (running, switched):
        switched.stream = failing_after(1, ValueError("boom"))
        async with ndjson(running.client, "/v1/status/stream", interval="100ms") as lines:
            async with asyncio.timeout(10):
                while "error" not in (line := await anext(lines)):
                    pass
            assert line["error"]["code"] == "upstream_error"
            assert line["error"]["detail"] == "handler panic: boom"


async def test_a_stream_of_a_flood_reaches_readers_and_others_are_served() -> None:
    """Nobody asked for so much, and a backend may send it all the same."""

    async def flood(request: object) -> AsyncIterator[object]:
        number = 0
        while True:
            number += 1
            yield state(number)

    async with behind_a_gateway() as (running, switched):
        switched.stream = flood
        switched.behave = answering(messages.StatusResponse(state().cluster_info))
        async with sse(running.client, interval="100ms") as reader:
            first = await reader.until(lambda event: event.type == "status")
            for _ in range(5):
                await is_well(running)
                assert (await running.client.get(FAST)).status_code == 200
            later = await reader.until(lambda event: event.type == "status")
            assert later.sequence > first.sequence
