"""Gateways and servers in processes of their own, and what the system tells about them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.faults.clients import TABLE, over_http
from tests.faults.leftovers import files_of, memory_of
from tests.integration.gateway_helpers import Command, command, identity_file
from tests.integration.zap_helpers import HANG, identity_of

_OF_THE_POOL = re.compile(
    r"connected to |no connection to |connection to \S+ lost: |\S+ is down: calls fail at once"
)
_CODES = {code for _, code in TABLE}


@dataclass(frozen=True)
class GatewayProcess:
    """`zap-gateway serve`."""

    command: Command
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def pid(self) -> int:
        return self.command.pid

    async def at_rest(self, connections: int) -> tuple[Counter[str], int]:
        """Its open files and its memory in bytes, once nothing is under way.

        Args:
            connections: how many it is to have to the server. Of clients there is the one that asks
                after all this.
        """
        wanted = [
            'zap_gateway_http_connections{state="busy"} 1.0',
            'zap_gateway_http_connections{state="idle"} 0.0',
            f'zap_gateway_upstream_connections{{state="connected"}} {connections}.0',
        ]
        async with over_http(self.address, 1) as (client,), asyncio.timeout(HANG):
            lines: list[str] = []
            while not set(wanted) <= set(lines):
                _, body = await client.fetch("GET", "/metrics")
                lines = body.decode().splitlines()
                await asyncio.sleep(0.02)
            return files_of(self.pid), memory_of(self.pid)

    async def stops(self) -> None:
        """Tell it to stop; it does so properly, and its log has told nothing strange."""
        status = await asyncio.to_thread(self.command.stop)
        assert status == 0, self.command.stderr
        lines = self.command.stderr.splitlines()
        strange = [line for line in lines if line.startswith("{") and _is_strange(json.loads(line))]
        assert strange == []
        assert "Traceback" not in self.command.stderr


def _is_strange(line: dict[str, Any]) -> bool:
    """Whether a line of the log is other than what the loss of a server explains."""
    if line["level"] not in ("info", "warning") or "exception" in line:
        return True
    if line["logger"] == "gateway.request":
        return line["code"] not in _CODES - {"internal_error"}
    if line["logger"] == "zapcore.pool":
        return _OF_THE_POOL.match(line["message"]) is None
    return line["level"] != "info"


@asynccontextmanager
async def gateway_process(
    upstream: str, folder: Path, *flags: object
) -> AsyncIterator[GatewayProcess]:
    """A gateway in front of the server at host:port, which has the tests' own identity."""
    told = ("--log-level", "warning", "--log-format", "json", *flags)
    with command(
        *("serve", "--port", "0", "--identity", identity_file(folder, "gateway")),
        *("--upstream", upstream, "--server", identity_of("server").public.fingerprint, *told),
        ZAP_GATEWAY_DRAIN_GRACE="0",
    ) as running:
        announced = r"zap-gateway: http://127\.0\.0\.1:(\d+) → "
        match = await asyncio.to_thread(running.line, announced)
        yield GatewayProcess(running, int(match[1]))


class NetrunnerProcess:
    """tests.faults.server, which always has the same keys and, from the first start on, port.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.effects = folder / "effects"
        """A line for each change that took effect."""
        self.address = ""
        self.pid = 0
        self.ready = 0.0
        """When it began to listen, by the system's monotonic clock."""
        self._identity = identity_file(folder, "server")
        self._process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """Start it, again or for the first time; it listens."""
        port = self.address.rpartition(":")[2] or "0"
        self._process = _start(str(self._identity), port, str(self.effects))
        async with asyncio.timeout(HANG):
            told = json.loads(await asyncio.to_thread(_line, self._process.stdout))
        self.address, self.pid, self.ready = told["address"], told["pid"], told["ready"]

    async def kill(self) -> None:
        """SIGKILL, and it is gone."""
        if self._process is not None and self._process.stdout is not None:
            self._process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(self._process.wait, HANG)
            self._process.stdout.close()
        self._process = None


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.server", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _line(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline()


@asynccontextmanager
async def netrunner_process(folder: Path) -> AsyncIterator[NetrunnerProcess]:
    """A simulated netrunner that serves."""
    netrunner = NetrunnerProcess(folder)
    try:
        await netrunner.start()
        yield netrunner
    finally:
        await netrunner.kill()
