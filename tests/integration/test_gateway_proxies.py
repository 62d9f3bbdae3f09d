"""Life behind a proxy: its path, the clients that it speaks for, and pages of its own origin."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.auth import new_token, token_line
from tests.commands.test_cli import Cli, cli, one_sentence
from tests.commands.test_cli_serve import NOBODY, identity
from tests.integration.gateway_helpers import Running, is_problem, running_gateway, sse
from tests.integration.zap_helpers import serving, soon
from zapcore import SimulatedNetrunner

__all__ = ["cli", "identity"]

ROOT = "/netrunner"
HERE = ("127.0.0.1",)
ELSEWHERE = ("192.0.2.1", "10.0.0.0/8")


@asynccontextmanager
async def behind(**settings: object) -> AsyncIterator[Running]:
    """A gateway behind a proxy, and a client that is the proxy."""
    async with (
        serving(SimulatedNetrunner(health_delay=0)) as server,
        running_gateway(server, **settings) as running,
    ):
        running.client.base_url = httpx.URL(running.url).join("/")
        yield running


# The path.


@pytest.mark.parametrize("prefix", [ROOT, ""], ids=["the proxy leaves it", "the proxy strips it"])
async def test_every_kind_of_route_is_found_under_the_root_path(prefix: str):
    async with behind(root_path=ROOT) as running:
        client = running.client
        for verb, path in (
            ("GET", "/v1/status"),  # the short way
            ("GET", "/v1/uris?timeout=5s"),  # FastAPI's
            ("GET", "/v1/nodes/node1"),
            ("POST", "/v1/nodes/node1/restart"),
            ("POST", "/v1/stream-tickets"),
            ("GET", "/healthz"),
            ("GET", "/readyz"),
            ("GET", "/metrics"),
            ("GET", "/docs"),
            ("GET", "/"),
            ("GET", "/static/docs.js"),
            ("GET", "/openapi.json"),
        ):
            response = await client.request(verb, prefix + path)
            assert response.status_code == 200, path
        stream = client.stream("GET", f"{prefix}/v1/status/stream")
        async with stream as response:
            assert response.status_code == 200
        text = (await client.get(f"{prefix}/metrics")).text
        assert 'route="/v1/status"' in text
        assert ROOT not in text


@pytest.mark.parametrize("prefix", [ROOT, ""], ids=["the proxy leaves it", "the proxy strips it"])
async def test_problem_documents_are_the_same_under_the_root_path(prefix: str):
    async with behind(root_path=ROOT) as running:
        client = running.client
        missing = is_problem(await client.get(f"{prefix}/nowhere"), 404, "not_found")
        assert missing["detail"].startswith("/nowhere is no address")
        is_problem(await client.put(f"{prefix}/v1/status"), 405, "method_not_allowed")
        is_problem(await client.post(f"{prefix}/v1/nodes/x/pause"), 404, "not_found", "PauseNode")
        is_problem(await client.post(f"{prefix}/v1/nodes"), 422, "invalid_request", "AddNode")
        is_problem(await client.get(f"{ROOT}{ROOT}/v1/status"), 404, "not_found")
        is_problem(await client.get(ROOT), 404, "not_found")


@pytest.mark.parametrize("prefix", [ROOT, ""], ids=["the proxy leaves it", "the proxy strips it"])
async def test_documents_refer_to_where_the_proxy_shows_them(prefix: str):
    async with behind(root_path=ROOT) as running:
        page = await running.client.get(f"{prefix}/docs")
        (refers,) = re.findall(r'data-document="([^"]+)"', page.text)
        assert refers == f"{ROOT}/openapi.json"
        document = (await running.client.get(f"{prefix}/openapi.json")).json()
        assert document["servers"] == [{"url": ROOT}]
        assert "/v1/status" in document["paths"]
        # Asked for again, it is the same.
        assert (await running.client.get(f"{prefix}/openapi.json")).json() == document


async def test_without_a_root_path_documents_name_no_server():
    async with behind() as running:
        document = (await running.client.get("/openapi.json")).json()
        assert "servers" not in document
        assert 'data-document="/openapi.json"' in (await running.client.get("/docs")).text
        is_problem(await running.client.get(f"{ROOT}/v1/status"), 404, "not_found")


async def test_who_may_do_what_does_not_depend_on_the_prefix():
    secret = new_token()
    tokens = (token_line("reader", "read", secret),)
    async with behind(root_path=ROOT, token=tokens) as running:
        bearer = {"Authorization": f"Bearer {secret}"}
        for prefix in (ROOT, ""):
            assert (await running.client.get(f"{prefix}/healthz")).status_code == 200
            is_problem(await running.client.get(f"{prefix}/v1/status"), 401, "unauthenticated")
            read = await running.client.get(f"{prefix}/v1/status", headers=bearer)
            assert read.status_code == 200
            for path in ("/v1/nodes/node1/pause", "/v1/cluster"):
                changing = await running.client.post(f"{prefix}{path}", headers=bearer)
                is_problem(changing, 403, "forbidden")
            made = await running.client.post(f"{prefix}/v1/stream-tickets", headers=bearer)
            ticket = made.json()["ticket"]
            for path, status in (("/v1/status/stream", 200), ("/v1/status", 401)):
                opened = running.client.stream("GET", f"{prefix}{path}", params={"ticket": ticket})
                async with opened as response:
                    assert response.status_code == status


# Whom it speaks for.


def clients_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Whom the log tells to have asked."""
    return [record.client for record in caplog.records if record.name == "gateway.request"]


@pytest.mark.parametrize(
    ("trusted", "hops", "client"),
    [
        ((), "198.51.100.4", "127.0.0.1"),
        (ELSEWHERE, "198.51.100.4", "127.0.0.1"),
        (HERE, "198.51.100.4", "198.51.100.4"),
        (HERE, "2001:db8::4", "2001:db8::4"),
        (HERE, "203.0.113.9, 198.51.100.4", "198.51.100.4"),
        ((*HERE, *ELSEWHERE), "203.0.113.9, 198.51.100.4, 10.1.2.3, 192.0.2.1", "198.51.100.4"),
        (HERE, "nonsense", "127.0.0.1"),
        (HERE, "198.51.100.4, <script>", "127.0.0.1"),
        (HERE, "", "127.0.0.1"),
        (("127.0.0.0/8",), "198.51.100.4", "198.51.100.4"),
    ],
)
async def test_the_log_tells_the_client(
    caplog: pytest.LogCaptureFixture, trusted: tuple[str, ...], hops: str, client: str
):
    caplog.set_level("INFO")
    async with behind(trusted_proxy=trusted) as running:
        for path in ("/v1/status", "/v1/nodes"):
            await running.client.get(path, headers={"x-forwarded-for": hops})
        assert clients_of(caplog) == [client, client]


async def test_hops_may_come_in_several_headers(caplog: pytest.LogCaptureFixture):
    """Which means the same as one header with commas."""
    caplog.set_level("INFO")
    async with behind(trusted_proxy=(*HERE, *ELSEWHERE)) as running:
        headers = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "198.51.100.4"),
            ("x-forwarded-for", "10.1.2.3"),
        ]
        await running.client.get("/v1/status", headers=headers)
        assert clients_of(caplog) == ["198.51.100.4"]


async def test_a_client_cant_put_its_own_header_behind_the_proxys(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("INFO")
    async with behind(trusted_proxy=HERE) as running:
        headers = [("x-forwarded-for", "1.2.3.4"), ("X-Forwarded-For", "198.51.100.4")]
        await running.client.get("/v1/status", headers=headers)
        assert clients_of(caplog) == ["198.51.100.4"]


# Hosts and origins.

PAGE = "https://gateway.example"


def page_behind_tls(**more: str) -> dict[str, str]:
    """What a browser sends for a page of the gateway's own, and the proxy for it."""
    return {
        "host": "gateway.example",
        "origin": PAGE,
        "sec-fetch-site": "same-origin",
        "x-forwarded-proto": "https",
        **more,
    }


async def test_a_page_of_its_own_origin_may_ask_behind_a_trusted_proxy_that_speaks_tls():
    async with behind(trusted_proxy=HERE, allowed_host=("gateway.example",)) as running:
        client = running.client
        for verb, path in (("GET", "/v1/status"), ("POST", "/v1/nodes/node1/restart")):
            response = await client.request(verb, path, headers=page_behind_tls())
            assert response.status_code == 200
        for wrong in (
            {"x-forwarded-proto": "http"},
            {"origin": "https://elsewhere.example"},
            {"origin": "http://gateway.example"},
            {"origin": f"{PAGE}:8443"},
            {"sec-fetch-site": "cross-site"},
        ):
            response = await client.post(
                "/v1/nodes/node1/restart", headers=page_behind_tls(**wrong)
            )
            is_problem(response, 403, "forbidden")


async def test_nobody_else_can_claim_tls():
    async with behind(trusted_proxy=ELSEWHERE, allowed_host=("gateway.example",)) as running:
        response = await running.client.post("/v1/nodes/node1/restart", headers=page_behind_tls())
        is_problem(response, 403, "forbidden")


async def test_the_proxy_may_ask_under_a_name_of_its_own_where_both_are_allowed():
    names = {"host": "gateway.internal:8081", "x-forwarded-host": "gateway.example"}
    both = ("gateway.example", "gateway.internal")
    async with behind(trusted_proxy=HERE, allowed_host=both) as running:
        response = await running.client.get("/v1/status", headers=page_behind_tls(**names))
        assert response.status_code == 200
    for trusted, allowed in ((HERE, both[:1]), (HERE, both[1:]), ((), both[:1])):
        async with behind(trusted_proxy=trusted, allowed_host=allowed) as running:
            response = await running.client.get("/v1/status", headers=names)
            is_problem(response, 403, "forbidden")


async def test_a_spoofed_host_opens_nothing():
    """A page elsewhere whose name leads here (DNS rebinding) could send such a header."""
    async with behind() as running:
        headers = {"host": "evil.example", "x-forwarded-host": "localhost"}
        is_problem(await running.client.get("/v1/status", headers=headers), 403, "forbidden")
    async with behind(trusted_proxy=HERE) as running:
        headers = {"host": "localhost", "x-forwarded-host": "evil.example"}
        is_problem(await running.client.get("/v1/status", headers=headers), 403, "forbidden")


async def test_a_stream_through_a_proxy_is_not_to_be_kept_back():
    async with behind(root_path=ROOT, trusted_proxy=HERE) as running:
        async with sse(running.client) as reader:
            assert (await reader.next()).type == "status"
        async with running.client.stream("GET", f"{ROOT}/v1/status/stream") as response:
            assert response.headers["cache-control"] == "no-store"
            assert "content-length" not in response.headers


async def test_garbage_from_a_trusted_proxy_fails_nothing():
    async with behind(trusted_proxy=HERE, root_path=ROOT) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            b"GET /netrunner/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b'X-Forwarded-For: \xff\xfe,,, ,;="\r\nX-Forwarded-Proto: \xff\r\n'
            b"X-Forwarded-Host:\r\nX-Forwarded-For:" + b",1" * 5000 + b"\r\n\r\n"
        )
        assert (await soon(reader.read())).startswith(b"HTTP/1.1 200")
        writer.close()


# Settings.


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--trusted-proxy", "proxy.example"), "10.0.0.7 or 10.0.0.0/24"),
        (("--trusted-proxy", "10.0.0.1/24"), "has host bits set"),
        (("--trusted-proxy", "10.0.0.1", "--trusted-proxy", "x"), "--trusted-proxy"),
        (("--root-path", "netrunner"), "is no path: give it as in /netrunner"),
        (("--root-path", "/a b"), "is no path"),
        (("--root-path", "/a//b"), "is no path"),
        (("--root-path", "/<script>"), "is no path"),
        (("--root-path", "https://gateway.example/netrunner"), "is no path"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    cli: Cli, identity: object, flags: tuple[str, ...], said: str
):
    status, out, err = cli(
        *("serve", "--port", "0", "--identity", identity, "--server", NOBODY, *flags)
    )
    assert (status, out) == (2, "")
    assert said in one_sentence(err)


@pytest.mark.parametrize("given", ["/netrunner/", "/netrunner"])
async def test_a_slash_at_the_end_of_the_root_path_is_nothing(given: str):
    async with behind(root_path=given) as running:
        response: httpx.Response = await running.client.get("/netrunner/v1/status")
        assert response.status_code == 200
        assert running.url.endswith("/netrunner")
