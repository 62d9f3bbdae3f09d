"""Several processes on one port: one that watches, and workers that serve.

Each worker has its own pool and its own limits. They share the listening socket, the key of stream
tickets, and the folder in which prometheus_client adds up their numbers, those of workers that are
gone included.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from gateway.metrics import SHARED_FOLDER
from gateway.tickets import KEY_SIZE, new_key

logger = logging.getLogger(__name__)

LISTENER_FLAG = "--worker-listener"

_STEADY = 10.0
"""Seconds after which a worker that ends is taken for an accident, not for one that can't start."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LAST_CHANCE = 2.0
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of ours is made in it


def read_key() -> bytes:
    """What a worker's parent tells it first, on standard input.

    Raises:
        EOFError: nobody told anything.
    """
    key = b""
    while len(key) < KEY_SIZE:
        part = os.read(sys.stdin.fileno(), KEY_SIZE - len(key))
        if not part:
            raise EOFError("a worker is started by `zap-gateway serve --workers N`")
        key += part
    return key


class Workers:
    """Starts workers, starts others in place of those that end, and stops them all.

    Args:
        count: how many.
        listener: the socket that they share.
        arguments: of the command that was asked for; a worker gets the same.
    """

    def __init__(self, count: int, listener: socket.socket, arguments: list[str]) -> None:
        self._count = count
        self._listener = listener
        self._arguments = arguments
        self._key = new_key()
        self._folder = ""
        self._processes: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._hasty = False

    async def run(self) -> int:
        """Run until a signal comes; the exit status."""
        self._folder = _shared_folder()
        self._handle_signals()
        try:
            await asyncio.gather(*(self._keep() for _ in range(self._count)))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return 1 if self._hasty else 0

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._tell_all, signal.SIGHUP)

    def _stop(self) -> None:
        """Workers drain; told again, they stop at once, or are made to."""
        if self._stopping.is_set():
            self._hasty = True
            asyncio.get_running_loop().call_later(_LAST_CHANCE, self._tell_all, signal.SIGKILL)
        self._stopping.set()
        self._listener.close()  # else it would go on to take connections that nobody serves
        self._tell_all(signal.SIGTERM)

    def _tell_all(self, number: int) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _keep(self) -> None:
        """Keep one worker running."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            started = loop.time()
            process = await self._start()
            status = await process.wait()
            del self._processes[process.pid]
            mark_process_dead(process.pid, self._folder)  # type: ignore[no-untyped-call]
            if self._stopping.is_set():
                return
            pause = (
                _FIRST_PAUSE if loop.time() - started > _STEADY else min(pause * 2, _LONGEST_PAUSE)
            )
            logger.error(
                "worker %d ended (status %d); another is started in %g s",
                process.pid,
                status,
                pause,
            )
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _start(self) -> Process:
        listener = self._listener.fileno()
        process = await asyncio.create_subprocess_exec(
            # -P: else a folder named gateway where the user stands would be taken for ours.
            *(sys.executable, "-P", "-m", "gateway", *self._arguments),
            *(LISTENER_FLAG, str(listener)),
            stdin=PIPE,
            pass_fds=(listener,),
            env={**os.environ, SHARED_FOLDER: self._folder},
            start_new_session=True,  # Ctrl-C is for us, who tell the workers
            preexec_fn=_ignore_hangup,
        )
        self._processes[process.pid] = process
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        # It stays open: its end tells the worker that we are gone.
        process.stdin.write(self._key)
        if self._stopping.is_set():
            process.terminate()
        return process


def _ignore_hangup() -> None:
    """A worker that does not serve yet has nothing to read again, and must not end."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _shared_folder() -> str:
    """A folder that only we can read, in memory where that can be had."""
    in_memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    return tempfile.mkdtemp(prefix="zap-gateway-", dir=_MEMORY if in_memory else None)
