"""Who may ask, over real HTTP: tokens with scopes, foreign hosts, other sites' pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.auth import new_token, token_line
from tests.integration.gateway_helpers import (
    Running,
    Watched,
    client_for,
    is_problem,
    running_gateway,
)
from tests.integration.zap_helpers import serving
from zapcore import SimulatedNetrunner

READER, OPERATOR = new_token(), new_token()


# One netrunner and two gateways for the whole file; what is changed may be changed again.
pytestmark = pytest.mark.asyncio(loop_scope="module")

RESTART = "/v1/nodes/node1/restart"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def netrunner() -> Watched:
    return Watched(SimulatedNetrunner(health_delay=0))


@pytest.fixture
def watched(netrunner: Watched) -> Watched:
    netrunner.received.clear()
    return netrunner


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(
    tmp_path_factory: pytest.TempPathFactory, netrunner: Watched
) -> AsyncIterator[Running]:
    """A gateway with a token of each scope."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    lines = (token_line("rita", "read", READER), token_line("otto", "operate", OPERATOR))
    tokens.write_text("# ours\n\n" + "\n".join(lines) + "  # end\n")
    async with serving(netrunner) as server, running_gateway(server, tokens=tokens) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_gateway(netrunner: Watched) -> AsyncIterator[Running]:
    """A gateway on loopback without tokens."""
    async with serving(netrunner) as server, running_gateway(server) as running:
        yield running


def bearer(secret: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"authorization": f"{scheme} {secret}"}


async def test_without_a_token_nothing_but_health_and_documents(guarded: Running):
    client = guarded.client
    for path in ("/v1/status", "/v1/status?x=1", "/v1/status/stream", "/metrics", "/nowhere"):
        response = await client.get(path)
        is_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")
    is_problem(await client.post(RESTART), 401, "unauthenticated")
    for path in ("/healthz", "/readyz", "/", "/docs", "/static/docs.js", "/openapi.json"):
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        bearer(new_token()),
        {"authorization": "Bearer"},
        bearer(READER, "Basic"),
        bearer(READER[:-1]),
        bearer(READER + "x"),
        bearer(READER.upper()),
        {"authorization": READER},
        {"authorization": ""},
    ],
)
async def test_a_wrong_token_is_no_token(
    guarded: Running, watched: Watched, headers: dict[str, str]
):
    response = await guarded.client.get("/v1/status", headers=headers)
    is_problem(response, 401, "unauthenticated")
    assert READER not in response.text
    assert watched.received == []


async def test_a_reader_reads_and_does_nothing_else(guarded: Running, watched: Watched):
    async with client_for(guarded.url, headers=bearer(READER)) as client:
        for path in ("/v1/status", "/v1/nodes", "/v1/health/wait", "/metrics"):
            assert (await client.get(path)).status_code == 200
        async with client.stream("GET", "/v1/status/stream") as response:
            assert response.status_code == 200
        changes = watched.counts
        for verb, path in (
            ("POST", RESTART),
            ("DELETE", "/v1/cluster"),
            ("DELETE", "/v1/nodes/node1"),
            ("POST", "/v1/nodes"),
        ):
            problem = is_problem(await client.request(verb, path), 403, "forbidden")
            assert "operate" in problem["detail"]
        assert watched.counts == changes


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_an_operator_does_all(guarded: Running, scheme: str):
    async with client_for(guarded.url, headers=bearer(OPERATOR, scheme)) as client:
        assert (await client.post(RESTART, json={"execPath": scheme})).status_code == 200
        assert (await client.get("/v1/nodes/node1")).json()["execPath"] == scheme


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost"}, 200),
        ({"host": "127.0.0.1:1"}, 200),
        ({"host": "[::1]:80"}, 200),
        ({"host": "LOCALHOST:80"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "10.0.0.1"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
async def test_requests_of_other_sites_do_not_reach_the_server(
    open_gateway: Running, watched: Watched, headers: dict[str, str], status: int
):
    for verb, path in (
        ("GET", "/v1/status"),
        ("GET", "/v1/nodes"),
        ("POST", RESTART),
    ):
        response = await open_gateway.client.request(verb, path, headers=headers)
        assert response.status_code == status
        if status == 403:
            is_problem(response, 403, "forbidden")
    assert bool(watched.received) == (status == 200)


async def test_our_own_pages_may_ask(open_gateway: Running):
    headers = {"origin": open_gateway.url, "sec-fetch-site": "same-origin"}
    response = await open_gateway.client.post(RESTART, headers=headers)
    assert response.status_code == 200


async def test_a_link_from_elsewhere_opens_the_documents_and_nothing_more(open_gateway: Running):
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await open_gateway.client.get("/docs", headers=visit)).status_code == 200
    is_problem(await open_gateway.client.get("/v1/ping", headers=visit), 403, "forbidden")
    embedded = {**visit, "sec-fetch-mode": "no-cors"}
    is_problem(await open_gateway.client.get("/docs", headers=embedded), 403, "forbidden")


async def test_names_and_origins_that_are_allowed(watched: Watched):
    async with (
        serving(watched) as server,
        running_gateway(
            server,
            allowed_host=("tools.example",),
            allowed_origin=("https://tools.example", "http://other.example:81"),
        ) as running,
    ):
        client: httpx.AsyncClient = running.client
        for headers, status in (
            ({"host": "Tools.example:8081"}, 200),
            ({"host": "localhost"}, 200),
            ({"host": "tools.example.evil"}, 403),
            ({"origin": "https://tools.example"}, 200),
            ({"origin": "https://tools.example", "sec-fetch-site": "cross-site"}, 200),
            ({"origin": "http://tools.example"}, 403),
            ({"origin": "https://tools.example:444"}, 403),
            ({"origin": "http://other.example:81"}, 200),
        ):
            assert (await client.get("/v1/ping", headers=headers)).status_code == status, headers


# Web pages that were let in by name.

TOOLS = "https://tools.example"


async def test_a_page_that_was_let_in_may_read_answers_and_send_json(tmp_path: Path):
    """What its browser asks first carries no token, and gets an answer all the same."""
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("page", "operate", "secret"))
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, allowed_origin=(TOOLS,), tokens=tokens) as running,
    ):
        asked = {"origin": TOOLS, "access-control-request-method": "POST"}
        preflight = await running.client.options("/v1/nodes", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == TOOLS
        assert "Content-Type" in preflight.headers["access-control-allow-headers"]
        headers = {"origin": TOOLS, "authorization": "Bearer secret"}
        status = await running.client.get("/v1/status", headers=headers)
        assert status.status_code == 200
        assert status.headers["access-control-allow-origin"] == TOOLS
        assert status.headers["vary"] == "Origin"
        without = await running.client.get("/v1/status", headers={"origin": TOOLS})
        assert without.status_code == 401


async def test_another_page_is_told_nothing():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, allowed_origin=(TOOLS,)) as running,
    ):
        for verb in ("OPTIONS", "GET"):
            headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
            refused = await running.client.request(verb, "/v1/status", headers=headers)
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers


async def test_no_page_may_put_ours_into_a_frame():
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
        for path in ("/docs", "/v1/status", "/nowhere"):
            answer = await running.client.get(path)
            assert answer.headers["x-frame-options"] == "DENY"
