"""Every row of the table of errors, produced for real."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway import process
from tests.integration.gateway_helpers import (
    Backend,
    Watched,
    answers,
    is_problem,
    running_gateway,
)
from tests.integration.zap_helpers import (
    Peer,
    ScriptedServer,
    eventually,
    free_port,
    identity_of,
    pong,
    serving,
    soon,
    told,
)
from zapcore import NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m
from zapcore.errors import RemoteError

OPERATE = {"content-type": "application/json"}


class Held:
    """A handler that keeps its callers waiting until the gate opens."""

    def __init__(self, answer: object) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self._answer = answer

    async def __call__(self, request: Any) -> Any:
        self.begun += 1
        await self.gate.wait()
        return self._answer


# What is wrong with the request.


async def test_an_address_that_is_none_and_a_method_that_it_does_not_know():
    async with serving(Backend()) as server, running_gateway(server) as running:
        client = running.client
        for path in ("/v1", "/v1/nothing", "/v1/status/", "/V1/status", "//v1/status"):
            response = await client.request("GET", "/", extensions={"target": path.encode()})
            assert path in is_problem(response, 404, "not_found")["detail"]
        for verb, path, allowed in (
            ("POST", "/v1/status", {"GET"}),
            ("PUT", "/v1/nodes/n", {"GET", "DELETE"}),
            ("OPTIONS", "/v1/nodes", {"GET", "POST"}),
            ("DELETE", "/healthz", {"GET"}),
        ):
            response = await client.request(verb, path)
            is_problem(response, 405, "method_not_allowed")
            allow = {name.strip() for name in response.headers["allow"].split(",")}
            assert allow <= allowed, "only what works"
            assert allow, "at least one"


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
async def test_a_body_beyond_the_limit_is_refused_and_one_at_the_limit_is_not(chunked: bool):
    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(body), 500):
            yield body[at : at + 500]

    def body_of(size: int) -> Any:
        body = b'{"name":"n","nodeConfig":"' + b"x" * (size - 28) + b'"}'
        assert len(body) == size
        return pieces(body) if chunked else body

    watched = Watched(Backend(add_node=answers(m.AddNodeResponse())))
    async with serving(watched) as server, running_gateway(server, max_body=2000) as running:
        most = await running.client.post("/v1/nodes", content=body_of(2000), headers=OPERATE)
        assert most.status_code == 200
        beyond = await running.client.post("/v1/nodes", content=body_of(2001), headers=OPERATE)
        is_problem(beyond, 413, "body_too_large", beyond.json().get("rpc"))
        assert watched.counts["add_node"] == 1


async def test_a_body_that_says_it_is_huge_is_refused_before_it_is_sent():
    async with serving(Backend()) as server, running_gateway(server) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            b"POST /v1/nodes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert (await soon(reader.readline())).startswith(b"HTTP/1.1 413 ")
        writer.close()
        await writer.wait_closed()


async def test_a_message_beyond_what_zap_can_carry_is_refused():
    """16 MiB is the limit of the protocol; --max-body can be beyond it."""
    handler = answers(m.SendOutboundMessageResponse(True))
    watched = Watched(Backend(send_outbound_message=handler))
    async with (
        serving(watched) as server,
        running_gateway(server, max_body=64 * 1024 * 1024) as running,
    ):
        path = "/v1/nodes/n/peers/p/messages"
        size = 16 * 1024 * 1024
        for length, status in ((size - 100, 200), (size, 413)):
            text = "A" * (length * 4 // 3 // 4 * 4 + 4)
            body = b'{"op":1,"bytes":"' + text.encode() + b'"}'
            response = await running.client.post(path, content=body, headers=OPERATE)
            assert response.status_code == status
        is_problem(response, 413, "body_too_large", "SendOutboundMessage")
        assert watched.counts["send_outbound_message"] == 1
        assert (await running.client.get("/readyz")).status_code == 200


async def test_a_well_formed_request_id_is_kept():
    async with serving(Backend()) as server, running_gateway(server) as running:
        for given in ("a", "A-b_c.9", "x" * 64, "4f1c2a7e9b3d4c58"):
            for path in ("/v1/status", "/v1/status?x=1", "/nowhere", "/healthz"):
                response = await running.client.get(path, headers={"x-request-id": given})
                assert response.headers["x-request-id"] == given


async def test_a_request_id_of_another_form_is_replaced():
    async with serving(Backend()) as server, running_gateway(server) as running:
        seen = set()
        for given in (b"", b"x" * 65, b"a b", b"a\tb", b'"', b"<b>", b"\xc3\xa9", b"a,b"):
            response = await running.client.get("/v1/ping", headers=[(b"x-request-id", given)])
            seen.add(response.headers["x-request-id"])
        assert len(seen) == 8
        assert all(len(name) == 16 and int(name, 16) >= 0 for name in seen)


# What the server says.


TEXTS = {
    "node not found": (404, "not_found"),
    'chain id "x" does not exist': (404, "not_found"),
    "not bootstrapped": (409, "not_bootstrapped"),
    "already bootstrapped": (409, "already_exists"),
    "node already exists": (409, "already_exists"),
    "repeated node name x": (409, "already_exists"),
    "zapwire: unknown SubOp 0x17 for OpStart": (501, "unsupported_by_server"),
    "zapwire: unknown opcode 0x3e": (501, "unsupported_by_server"),
    "handler panic: runtime error": (502, "upstream_error"),
    "anything else": (502, "upstream_error"),
}


async def test_the_servers_error_texts():
    texts = iter(TEXTS)

    async def refuse(request: object) -> None:
        raise RemoteError(next(texts))

    async with (
        serving(Backend(pause_node=refuse)) as server,
        running_gateway(server) as running,
    ):
        for text, (status, code) in TEXTS.items():
            paused = await running.client.post("/v1/nodes/n/pause")
            assert is_problem(paused, status, code, "PauseNode")["detail"] == text


async def test_what_a_server_does_not_implement_is_told_for_every_rpc():
    """A server without a single RPC."""
    async with serving(Backend()) as server, running_gateway(server) as running:
        for verb, path, rpc in (
            ("GET", "/v1/status", "Status"),
            ("GET", "/v1/nodes", "Status"),
            ("GET", "/v1/snapshots", "GetSnapshotNames"),
            ("GET", "/v1/health/wait", "WaitForHealthy"),
            ("POST", "/v1/cluster", "Start"),
            ("DELETE", "/v1/cluster", "Stop"),
        ):
            response = await running.client.request(verb, path)
            is_problem(response, 501, "unsupported_by_server", rpc)


async def test_an_error_text_with_markup_and_10_000_characters_stays_text():
    text = "<script>alert(1)</script>\"'\n\0" + "ü" * 10_000
    async with (
        serving(Backend(status=answers(RemoteError(text)))) as server,
        running_gateway(server) as running,
    ):
        for path in ("/v1/status", "/v1/status?x=1"):
            response = await running.client.get(path)
            detail = is_problem(response, 502, "upstream_error", "Status")["detail"]
            assert detail == text[:2000] + "…"
            assert response.headers["x-content-type-options"] == "nosniff"


async def test_an_answer_that_can_not_be_decoded():
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.opcode == 60:
                await peer.send(pong(request))
            else:
                await peer.answer(request, b"\x01\xff\xff\xff\xff")

    async with ScriptedServer(script) as server, running_gateway(server) as running:
        for path in ("/v1/status", "/v1/status?x=1", "/v1/uris", "/v1/nodes"):
            response = await running.client.get(path)
            assert response.json()["rpc"] in ("Status", "URIs")
            is_problem(response, 502, "upstream_protocol_error", response.json()["rpc"])
        paused = await running.client.post("/v1/nodes/n/pause")
        is_problem(paused, 502, "upstream_protocol_error", "PauseNode")
        assert (await running.client.get("/v1/ping")).status_code == 200, "the connection stands"


async def test_a_record_that_does_not_open():
    async def script(peer: Peer) -> None:
        await peer.message()
        await peer.deliver(struct.pack(">I", 64) + os.urandom(64))
        await peer.closed()

    async with ScriptedServer(script) as server, running_gateway(server) as running:
        response = await running.client.get("/v1/status")
        is_problem(response, 502, "upstream_protocol_error", "Status")
    async with ScriptedServer(script) as server, running_gateway(server) as running:
        response = await running.client.post("/v1/nodes/n/pause")
        is_problem(response, 502, "outcome_unknown", "PauseNode")


async def test_a_handshake_that_fails():
    async def script(peer: Peer) -> None:
        await peer.frame()
        await peer.deliver(struct.pack(">I", 6) + b"banana")
        await peer.closed()

    async with (
        ScriptedServer(script, raw=True) as server,
        running_gateway(server, ready=False, acquire_timeout="0.2") as running,
    ):
        await eventually(lambda: running.gateway.pool.last_failure)
        response = await running.client.get("/v1/status")
        is_problem(response, 502, "upstream_protocol_error", "Status")
        paused = await running.client.post("/v1/nodes/n/pause")
        is_problem(paused, 502, "upstream_protocol_error", "PauseNode")
        is_problem(await running.client.get("/readyz"), 503, "upstream_unavailable")


async def test_a_server_that_is_not_the_pinned_one_gets_no_call():
    watched = Watched(SimulatedNetrunner())
    other = identity_of("somebody else").public
    async with (
        serving(watched) as server,
        running_gateway(server, pin=other, ready=False, acquire_timeout="5s") as running,
    ):
        await eventually(lambda: running.gateway.pool.last_failure)
        for verb, path, rpc in (
            ("GET", "/v1/status", "Status"),
            ("GET", "/v1/status?x=1", "Status"),
            ("POST", "/v1/nodes/n/pause", "PauseNode"),
        ):
            response = await running.client.request(verb, path)
            problem = is_problem(response, 502, "upstream_identity_mismatch", rpc)
            assert server.identity.public.fingerprint in problem["detail"]
        ready = is_problem(await running.client.get("/readyz"), 503, "upstream_unavailable")
        assert server.identity.public.fingerprint in ready["detail"]
        assert (await running.client.get("/healthz")).status_code == 200
        assert watched.received == []


# Connections that break.


async def test_a_change_whose_connection_breaks_is_sent_once_and_its_outcome_is_unknown():
    held = Held(told("n"))
    watched = Watched(Backend(pause_node=held, status=answers(m.StatusResponse())))
    server = NetrunnerServer(watched, identity_of("server"))
    await server.start(port=0)
    port = int(server.address.rpartition(":")[2])
    async with running_gateway(server) as running:
        call = asyncio.create_task(running.client.post("/v1/nodes/n/pause"))
        await eventually(lambda: held.begun)
        await server.close()
        problem = is_problem(await soon(call), 502, "outcome_unknown", "PauseNode")
        assert "not repeated" in problem["detail"]

        again = NetrunnerServer(watched, identity_of("server"))
        async with again.serving(port=port):
            await eventually(lambda: running.gateway.pool.connected_now)
            assert (await running.client.get("/v1/status")).status_code == 200
            assert watched.counts["pause_node"] == 1


async def test_a_read_whose_connection_breaks_is_repeated_once():
    """The first connection that gets a Status dies of it; the second answers."""
    died: list[Peer] = []

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.opcode == 60:
                await peer.send(pong(request))
            elif not died:
                died.append(peer)
                await peer.close()
                return
            else:
                await peer.answer(request, m.StatusResponse())

    async with ScriptedServer(script) as server, running_gateway(server) as running:
        await eventually(lambda: len(running.gateway.pool.connections) == 2)
        assert (await running.client.get("/v1/status")).status_code == 200
        assert len(died) == 1


async def test_nobody_listens_until_somebody_does():
    """The gateway starts, says so, and recovers by itself."""
    port = free_port()
    async with running_gateway(f"127.0.0.1:{port}", ready=False, acquire_timeout="0.1") as running:
        await eventually(lambda: running.gateway.pool.last_failure)
        for verb, path, rpc in (
            ("GET", "/v1/status", "Status"),
            ("GET", "/v1/nodes/n", "Status"),
            ("POST", "/v1/nodes/n/pause", "PauseNode"),
        ):
            response = await running.client.request(verb, path)
            problem = is_problem(response, 503, "upstream_unavailable", rpc)
            assert "nobody listens" in problem["detail"]
            assert int(response.headers["retry-after"]) >= 1
        is_problem(await running.client.get("/readyz"), 503, "upstream_unavailable")
        assert (await running.client.get("/healthz")).status_code == 200

        server = NetrunnerServer(SimulatedNetrunner(), identity_of("server"))
        async with server.serving(port=port):
            await eventually(lambda: running.gateway.pool.connected_now)
            assert (await running.client.get("/readyz")).status_code == 200
            assert (await running.client.get("/v1/status")).status_code == 200
        await eventually(lambda: not running.gateway.pool.connected_now)
        is_problem(await running.client.get("/readyz"), 503, "upstream_unavailable")
        assert (await running.client.get("/healthz")).status_code == 200


async def test_one_call_too_many_is_refused_at_once():
    held = Held(m.StatusResponse())
    async with (
        serving(Backend(status=held, pause_node=answers(told("n")))) as server,
        running_gateway(server, max_calls=3) as running,
    ):
        calls = [asyncio.create_task(running.client.get("/v1/status")) for _ in range(3)]
        await eventually(lambda: held.begun == 3)
        for verb, path, rpc in (
            ("GET", "/v1/ping", "Ping"),
            ("GET", "/v1/ping?x=1", "Ping"),
            ("POST", "/v1/nodes/n/pause", "PauseNode"),
        ):
            is_problem(await running.client.request(verb, path), 503, "overloaded", rpc)
        assert (await running.client.get("/readyz")).status_code == 200
        held.gate.set()
        assert [response.status_code for response in await asyncio.gather(*calls)] == [200] * 3
        assert (await running.client.post("/v1/nodes/n/pause")).status_code == 200


# Time.


async def test_a_server_that_never_answers_costs_the_time_that_was_set():
    held = Held(m.StatusResponse())
    backend = Backend(status=held, uris=held, pause_node=held, wait_for_healthy=held)
    async with (
        serving(backend) as server,
        running_gateway(server, call_timeout="50ms", change_timeout="60ms") as running,
    ):
        for verb, path, rpc, said in (
            ("GET", "/v1/status", "Status", "0.05 s"),
            ("GET", "/v1/status?x=1", "Status", "0.05 s"),
            ("GET", "/v1/nodes", "Status", "0.05 s"),
            ("POST", "/v1/nodes/n/pause", "PauseNode", "0.06 s"),
            ("GET", "/v1/health/wait?timeout=70ms", "WaitForHealthy", "0.07 s"),
        ):
            response = await running.client.request(verb, path)
            detail = is_problem(response, 504, "deadline_exceeded", rpc)["detail"]
            assert said in detail
            assert ("may still take effect" in detail) == (verb == "POST")
        assert held.begun == 5, "nothing was repeated"


async def test_waiting_for_a_cluster_that_is_not_healthy_in_time():
    async with (
        serving(SimulatedNetrunner(health_delay=3600)) as server,
        running_gateway(server, call_timeout="5s") as running,
    ):
        response = await running.client.get("/v1/health/wait", params={"timeout": "20ms"})
        is_problem(response, 504, "deadline_exceeded", "WaitForHealthy")


async def test_a_client_that_hangs_up_leaves_nothing_behind():
    held = Held(m.StatusResponse())
    async with (
        serving(Backend(status=held)) as server,
        running_gateway(server, max_calls=1, call_timeout="100ms") as running,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await eventually(lambda: held.begun)
        writer.transport.abort()
        await eventually(lambda: running.gateway.pool.calls == 0)
        assert not await reader.read()


# Defects.


@pytest.mark.parametrize("path", ["/v1/status", "/v1/status?x=1"])
async def test_a_defect_of_the_gateway_is_a_problem_document_too(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """And it does not tell what went wrong inside; the log does."""
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server) as running,
    ):

        def broken(*_: object) -> bytes:
            raise LookupError("a secret of the inside")

        monkeypatch.setattr(running.gateway.upstream, "render", broken)
        response = await running.client.get(path)
        problem = is_problem(response, 500, "internal_error", "Status")
        assert "secret" not in response.text
        assert problem["detail"]
        assert "a secret of the inside" in caplog.text
        monkeypatch.undo()
        assert (await running.client.get(path)).status_code == 200


# HTTP itself.


async def test_garbage_instead_of_http_ends_that_connection_alone():
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http at all\r\n\r\n")
        assert (await soon(reader.read())).startswith(b"HTTP/1.1 400")
        writer.close()
        await writer.wait_closed()
        assert (await running.client.get("/v1/status")).status_code == 200


async def test_many_requests_on_one_connection_are_answered_in_order():
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        for number in range(20):
            path = ("/v1/status", "/v1/nodes/node1", "/nowhere")[number % 3]
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: r{number}\r\n\r\n"
            writer.write(head.encode())
        seen = []
        while len(seen) < 20:
            length = 0
            while (line := (await soon(reader.readline())).strip()) != b"":
                name, _, value = line.lower().partition(b": ")
                if name == b"x-request-id":
                    seen.append(value.decode())
                if name == b"content-length":
                    length = int(value)
            json.loads(await reader.readexactly(length))
        assert seen == [f"r{number}" for number in range(20)]
        writer.close()
        await writer.wait_closed()


def test_answers_are_not_held_back():
    """Small answers leave at once: whatever the event loop, TCP_NODELAY is on."""
    with process.listen("127.0.0.1", 0) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_head_is_answered_without_a_body_and_without_a_call():
    watched = Watched(SimulatedNetrunner())
    async with serving(watched) as server, running_gateway(server) as running:
        response: httpx.Response = await running.client.head("/v1/status")
        assert response.status_code == 405
        assert response.content == b""
        assert watched.received == []
