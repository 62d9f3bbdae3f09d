"""Tickets over real HTTP: they open streams without a header, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway import streams
from gateway.auth import OPEN_PATHS, digest_of, new_token, token_line
from gateway.routes.streams import STREAM_PATHS
from gateway.tickets import LIFETIME
from tests.commands.test_cli_serve import is_ready
from tests.integration.gateway_helpers import (
    Command,
    Running,
    Simulator,
    SseReader,
    Watched,
    client_for,
    command,
    identity_file,
    is_problem,
    operations,
    running_gateway,
    simulator,
    sse,
)
from tests.integration.zap_helpers import eventually, serving, soon
from zapcore import SimulatedNetrunner

# One netrunner and one gateway for most of the file.
pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAM, TICKETS = "/v1/status/stream", "/v1/stream-tickets"
PROGRAM = {"accept": "application/x-ndjson"}
READER, OPERATOR = new_token(), new_token()


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def netrunner() -> Watched:
    return Watched(SimulatedNetrunner(health_delay=0))


@pytest_asyncio.fixture(loop_scope="module")
async def watched(netrunner: Watched) -> Watched:
    await eventually(lambda: not netrunner.streams)
    netrunner.received.clear()
    return netrunner


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(netrunner: Watched) -> AsyncIterator[Running]:
    """A gateway with a token of each scope."""
    lines = (token_line("rita", "read", READER), token_line("otto", "operate", OPERATOR))
    async with serving(netrunner) as server, running_gateway(server, token=lines) as running:
        yield running


async def ticket_for(client: httpx.AsyncClient, secret: str) -> str:
    answer = await client.post(TICKETS, headers=bearer(secret))
    assert answer.status_code == 200
    return str(answer.json()["ticket"])


async def ask(
    client: httpx.AsyncClient, path: str, verb: str = "GET", **options: Any
) -> httpx.Response:
    """The answer; a stream, which none of these requests should open, is not read."""
    async with client.stream(verb, path, **options) as response:
        if response.status_code != 200:
            await response.aread()
    return response


# What a ticket opens.


@pytest.mark.parametrize("secret", [READER, OPERATOR], ids=["read", "operate"])
async def test_a_ticket_opens_the_stream_without_a_header(guarded: Running, secret: str):
    answer = await guarded.client.post(TICKETS, headers=bearer(secret))
    assert answer.json() == {"ticket": answer.json()["ticket"], "expiresIn": LIFETIME}
    async with sse(guarded.client, ticket=answer.json()["ticket"]) as reader:
        event = await reader.next()
        assert event.type == "status"
        assert event.data["clusterInfo"]["nodeNames"]


async def test_a_ticket_opens_the_stream_for_programs_too(guarded: Running):
    ticket = await ticket_for(guarded.client, READER)
    async with guarded.client.stream(
        "GET", STREAM, params={"ticket": ticket}, headers=PROGRAM
    ) as response:
        assert response.status_code == 200
        line = await soon(anext(response.aiter_lines()))
        assert json.loads(line)["clusterInfo"]["nodeNames"]


def filled(path: str) -> str:
    """A path with a name for every parameter."""
    return re.sub(r"{\w+}", "node1", path)


OTHERS = [
    (verb, filled(path))
    for verb, path in sorted(operations())
    if path not in OPEN_PATHS and path not in STREAM_PATHS
]


@pytest.mark.parametrize(
    ("verb", "path"),
    [*OTHERS, ("GET", "/nowhere"), ("GET", STREAM + "/"), ("GET", STREAM.upper())],
    ids=lambda value: value,
)
@pytest.mark.parametrize("secret", [READER, OPERATOR], ids=["read", "operate"])
async def test_a_ticket_opens_nothing_else(
    guarded: Running, watched: Watched, secret: str, verb: str, path: str
):
    ticket = await ticket_for(guarded.client, secret)
    for headers in ({}, bearer(ticket)):
        answer = await ask(guarded.client, f"{path}?ticket={ticket}", verb, headers=headers)
        is_problem(answer, 401, "unauthenticated")
    assert watched.received == []


async def test_every_route_but_the_stream_was_tried():
    assert len(OTHERS) > 25
    assert ("GET", "/metrics") in OTHERS
    assert ("POST", TICKETS) in OTHERS, "a ticket gets no other ticket"


async def test_a_ticket_as_a_token_opens_no_stream(guarded: Running):
    ticket = await ticket_for(guarded.client, READER)
    answer = await ask(guarded.client, STREAM, headers=bearer(ticket))
    is_problem(answer, 401, "unauthenticated")


async def test_a_wrong_token_is_not_made_good_by_a_ticket(guarded: Running):
    ticket = await ticket_for(guarded.client, READER)
    wrong = bearer(new_token())
    answer = await ask(guarded.client, STREAM, params={"ticket": ticket}, headers=wrong)
    is_problem(answer, 401, "unauthenticated")


async def test_a_ticket_of_another_gateway_opens_nothing(guarded: Running):
    """Also where both have the same tokens: each has a key of its own."""
    lines = (token_line("rita", "read", READER),)
    async with running_gateway("127.0.0.1:1", ready=False, token=lines) as other:
        ticket = await ticket_for(other.client, READER)
    answer = await ask(guarded.client, STREAM, params={"ticket": ticket})
    is_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize(
    "query",
    ["", "ticket", "ticket=", "ticket=x", "ticket=..", f"ticket={'9' * 5000}", "ticket=%ff"],
)
async def test_what_is_no_ticket_opens_nothing(guarded: Running, watched: Watched, query: str):
    answer = await ask(guarded.client, f"{STREAM}?{query}")
    is_problem(answer, 401, "unauthenticated")
    assert watched.received == []


# Who gets one.


@pytest.mark.parametrize(
    "headers",
    [{}, bearer(new_token()), bearer(READER[:-1]), {"authorization": f"Basic {READER}"}],
    ids=["none", "unknown", "cut off", "another scheme"],
)
async def test_without_a_token_there_is_no_ticket(guarded: Running, headers: dict[str, str]):
    answer = await guarded.client.post(TICKETS, headers=headers)
    is_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("name", "secret"), [("rita", READER), ("otto", OPERATOR)], ids=["read", "operate"]
)
async def test_a_ticket_does_not_give_its_token_away(guarded: Running, name: str, secret: str):
    answer = await guarded.client.post(TICKETS, headers=bearer(secret))
    assert answer.json()["ticket"].endswith(f".{name}")
    for kept in (secret, secret.removeprefix("zgw_"), digest_of(secret).hex()):
        assert kept not in answer.text
    assert answer.headers["cache-control"] == "no-store"


async def test_without_tokens_a_ticket_is_empty_and_the_stream_opens(netrunner: Watched):
    async with serving(netrunner) as server, running_gateway(server) as running:
        answer = await running.client.post(TICKETS)
        assert answer.status_code == 200
        assert answer.json() == {"ticket": "", "expiresIn": LIFETIME}
        async with sse(running.client, ticket="") as reader:
            assert (await reader.next()).type == "status"


# A real process: what it logs, and what a signal does.


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@asynccontextmanager
async def served(
    folder: Path, simulated: Simulator, *flags: object
) -> AsyncIterator[tuple[Command, httpx.AsyncClient]]:
    """`zap-gateway serve`, ready, and a client of it."""
    with command(
        *("serve", "--port", "0", "--identity", identity_file(folder, "gateway")),
        *("--upstream", simulated.address, "--server", simulated.fingerprint),
        *("--log-format", "json", "--log-level", "debug", "--drain-grace", "0", *flags),
    ) as running:
        found = await asyncio.to_thread(running.line, r"zap-gateway: (http://\S+) → ")
        async with client_for(found[1]) as client:
            await asyncio.to_thread(is_ready, found[1])
            yield running, client


async def test_no_ticket_and_no_token_is_ever_logged(tmp_path: Path, simulated: Simulator):
    """At the most talkative level, whether a request is let in, refused, or makes no sense."""
    line = token_line("rita", "read", READER)
    async with served(tmp_path, simulated, "--token", line) as (running, client):
        ticket = await ticket_for(client, READER)
        async with sse(client, ticket=ticket) as reader:
            await reader.next()
        async with client.stream("GET", STREAM, headers=bearer(READER)) as response:
            assert response.status_code == 200
        for path, status in (
            (f"{STREAM}?ticket={ticket}x", 401),
            (f"{STREAM}?ticket={ticket}&interval=never", 422),
            (f"{STREAM}?ticket={ticket}{'&x=1' * 1000}&interval=never", 422),
            (f"/v1/status?ticket={ticket}", 401),
            (f"/nowhere?ticket={ticket}", 401),
        ):
            assert (await ask(client, path)).status_code == status
        head = f"GET {STREAM}?ticket={ticket} HTTP/1.1\r\nno header\r\n\r\n"
        answer = await raw_answer(client, head)
        assert answer.startswith("HTTP/1.1 400 ")
        running.send(signal.SIGTERM)
        assert await asyncio.to_thread(running.wait) == 0
    said = running.stdout + running.stderr
    assert said.count(f'"path":"{STREAM}"') >= 4, "requests are logged, with their path"
    assert '"token":"rita"' in said
    assert "Traceback" not in said
    expiry, mac, _ = ticket.split(".")
    for secret in (ticket, mac, f"{expiry}.", "ticket=", READER, digest_of(READER).hex()):
        assert secret not in said


async def raw_answer(client: httpx.AsyncClient, text: str) -> str:
    """What comes back for what is written as it is."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        writer.write(text.encode())
        return (await soon(reader.read())).decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def is_ended_for_its_token(reader: SseReader) -> None:
    """The stream ends cleanly, and its last event says why."""
    lines = [line async for line in reader._lines if line]
    assert lines[-2] == "event: end"
    problem = json.loads(lines[-1].removeprefix("data: "))
    assert (problem["code"], problem["status"]) == ("unauthenticated", 401)
    assert "token" in problem["detail"]
    assert [line for line in lines if line.startswith("event: ")].count("event: end") == 1


async def test_streams_end_with_their_token_and_others_go_on(tmp_path: Path, simulated: Simulator):
    """However they were opened, and however seldom they have something to say."""
    lines = {
        "rita": token_line("rita", "read", READER),
        "otto": token_line("otto", "operate", OPERATOR),
    }
    tokens = tmp_path / "tokens"
    tokens.write_text("\n".join(lines.values()))
    async with served(tmp_path, simulated, "--tokens", tokens) as (running, client):
        ritas = await ticket_for(client, READER)
        ottos = await ticket_for(client, OPERATOR)
        rare = {"interval": "1h"}
        async with (
            client_for(str(client.base_url), headers=bearer(READER)) as rita,
            client_for(str(client.base_url), headers=bearer(OPERATOR)) as otto,
            sse(rita, **rare) as by_token,
            sse(client, ticket=ritas, **rare) as by_ticket,
            sse(client, ticket=ritas, interval="100ms") as busy,
            sse(client, ticket=ritas, interval="100ms", changes=True) as of_changes,
            client.stream("GET", STREAM, params={"ticket": ritas}, headers=PROGRAM) as of_lines,
            sse(otto, interval="100ms") as others_by_token,
            sse(client, ticket=ottos, interval="100ms") as others_by_ticket,
        ):
            taken, kept = (
                (by_token, by_ticket, busy, of_changes),
                (others_by_token, others_by_ticket),
            )
            for reader in (*taken, *kept):
                assert (await reader.next()).type == "status"
            tokens.write_text(lines["otto"])
            running.send(signal.SIGHUP)
            for reader in taken:
                await soon(is_ended_for_its_token(reader))
            *_, last = [line async for line in of_lines.aiter_lines()]
            assert json.loads(last)["end"]["code"] == "unauthenticated"
            for reader in kept:
                for _ in range(3):
                    assert (await reader.next()).type == "status"
            for again in ({"params": {"ticket": ritas}}, {"headers": bearer(READER)}):
                answer = await ask(client, STREAM, **again)
                is_problem(answer, 401, "unauthenticated")
            assert await ticket_for(client, OPERATOR)
        running.send(signal.SIGTERM)
        assert await asyncio.to_thread(running.wait) == 0
        assert "Traceback" not in running.stderr


async def test_a_stream_that_has_nothing_to_say_ends_with_its_token_at_once(
    tmp_path: Path, netrunner: Watched, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "KEEP_ALIVE", 3600)
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("rita", "read", READER))
    async with serving(netrunner) as server, running_gateway(server, tokens=tokens) as running:
        ticket = await ticket_for(running.client, READER)
        async with sse(running.client, ticket=ticket, interval="1h") as reader:
            await reader.next()
            tokens.write_text(token_line("otto", "read", OPERATOR))
            running.server.reload()  # as the signal does
            await soon(is_ended_for_its_token(reader))


async def test_a_stream_goes_on_when_the_tokens_are_read_again_and_are_the_same(
    tmp_path: Path, simulated: Simulator
):
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("rita", "read", READER))
    async with served(tmp_path, simulated, "--tokens", tokens) as (running, client):
        ticket = await ticket_for(client, READER)
        async with sse(client, ticket=ticket, interval="100ms") as reader:
            await reader.next()
            with tokens.open("a") as file:
                file.write("\n" + token_line("new", "read", OPERATOR))
            running.send(signal.SIGHUP)
            await asyncio.to_thread(running.line, "read 2 tokens")
            for _ in range(3):
                assert (await reader.next()).type == "status"
