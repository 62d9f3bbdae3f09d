"""Clients that go without manners leave nothing in the gateway."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from tests.faults.leftovers import only_new_objects
from tests.faults.proxy import reset
from tests.integration.gateway_helpers import running_gateway
from tests.integration.zap_helpers import eventually, serving, soon
from zapcore import SimulatedNetrunner

PLAIN = b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
OTHER = b"GET /v1/status?timeout=5s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("requests", [[PLAIN], [PLAIN, PLAIN, PLAIN], [OTHER], [b""]])
async def test_a_client_that_resets_its_idle_connection_is_forgotten(requests: list[bytes]):
    """Its connection would be kept open for a while: not when it is gone."""
    with only_new_objects():
        async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
            connections = running.server.connections.all
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            for request in requests:
                writer.write(request)
                if request:
                    await soon(reader.readuntil(b'"networkId":1337}}'))
            await eventually(lambda: connections)
            (gone,) = map(weakref.ref, connections)
            reset(writer)
            await eventually(lambda: not connections)
            gc.collect()
            assert gone() is None
