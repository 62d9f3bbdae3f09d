"""Running the gateway as a process: its sockets, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import uvicorn

from gateway.app import Gateway
from gateway.http import HttpConnection, HttpConnections, HttpLimits
from gateway.settings import Settings, SettingsError
from gateway.tls import HANDSHAKE_TIMEOUT, CertificateError, ServerCertificate

logger = logging.getLogger(__name__)

BACKLOG = 2048
_POLL = 0.05
_LAST_WORDS = 1.0
"""Seconds for answers to leave once everything under way was given up."""

_LAST_READS = 0.1
"""Seconds for requests that have arrived to be read, once nobody can connect any more."""

_FILES_BESIDE_CONNECTIONS = 64

_THREADS = 2
"""More would make nothing faster, as they share the interpreter, and each keeps memory of its own.
With one alone, what is large would wait behind a name that is looked up."""


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on the fastest event loop there is; its result is an exit status."""
    try:
        import uvloop
    except ImportError:
        run_on = asyncio.run
    else:
        run_on = uvloop.run
    return int(run_on(main))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the address is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # For clients that vanish without a word; what is accepted inherits it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return listener
    except OSError as error:
        raise SettingsError(
            f"can't listen on {host} port {port}: {error.strerror or error}."
            " Choose another with --port (0 takes any free one)"
        ) from error


def url_of(listener: socket.socket, settings: Settings | None = None) -> str:
    """Where a socket is reached."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings is not None and settings.tls_certificate else "http"
    root = settings.root_path if settings is not None else ""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{root}"


def load_certificate(settings: Settings) -> ServerCertificate | None:
    """The certificate to serve HTTPS with; None for HTTP.

    Raises:
        SettingsError: it can't be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    try:
        return ServerCertificate(settings.tls_certificate, settings.tls_key)
    except CertificateError as error:
        raise SettingsError(str(error)) from error


def allow_open_files(connections: int) -> None:
    """Let the process have as many connections as it was told, as far as the system lets it."""
    wanted = connections + _FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        logger.warning(
            "the system allows %d open files: --max-connections %d can't be reached",
            hard,
            connections,
        )
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _http_limits(settings: Settings) -> HttpLimits:
    return HttpLimits(
        max_connections=settings.max_connections,
        max_header=settings.max_header,
        max_body=settings.max_body,
        receive_timeout=settings.receive_timeout,
        send_timeout=settings.send_timeout,
        idle_timeout=settings.idle_timeout,
    )


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Who has connected and was not accepted yet."""
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            client.setblocking(False)
            yield client


class Server(uvicorn.Server):
    """uvicorn with our connections, our signals and our way to stop.

    SIGINT and SIGTERM: readiness goes at once; after the grace time new calls are refused, streams
    end, and calls under way get the rest of the time; the exit status is 0. A second signal ends
    it at once. SIGHUP reads tokens and certificate again.

    Args:
        gateway: the application.
        settings: its settings.
        certificate: for HTTPS.
    """

    def __init__(
        self, gateway: Gateway, settings: Settings, certificate: ServerCertificate | None = None
    ) -> None:
        config = uvicorn.Config(
            gateway,
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.idle_timeout,  # type: ignore[arg-type] # a float will do
            ssl_certfile=None if certificate is None else settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
        )
        super().__init__(config)
        self._gateway = gateway
        self._settings = settings
        self._certificate = certificate
        self.connections = HttpConnections(_http_limits(settings), gateway.metrics.request_refused)
        gateway.count_connections = self.connections.count
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_sweep = 0.0
        self._next_look = 0.0

    # Signals.

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal drains; a second one ends the process at once."""
        del sig, frame
        self._soon(self.stop)

    def _soon(self, action: Callable[[], None]) -> None:
        # A handler runs between any two steps of the program; what it starts, in its own turn.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(action)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while serving, and do not raise them again afterwards."""
        self._loop = asyncio.get_running_loop()
        handlers: dict[int, Callable[[int, FrameType | None], None]] = {
            signal.SIGINT: self.handle_exit,
            signal.SIGTERM: self.handle_exit,
            signal.SIGHUP: lambda *_: self._soon(self.reload),
        }
        before = {number: signal.signal(number, action) for number, action in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Begin to stop, or, the second time, stop at once."""
        if self._gateway.draining:
            logger.warning("told to stop again: calls under way are cut off")
            self.should_exit = self.force_exit = self._gateway.hasty = True
            return
        grace = self._settings.drain_grace
        logger.info("told to stop: not ready any more; new calls are refused in %g s", grace)
        self._gateway.begin_drain()
        asyncio.get_running_loop().call_later(grace, self._refuse_new)

    def _refuse_new(self) -> None:
        self._gateway.refuse_new()
        self.should_exit = True

    def reload(self) -> None:
        """Read again what can change while we run."""
        self._gateway.reload_tokens()
        if self._certificate is not None:
            self._certificate.reload()

    # The life of the server.

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, once the application is up."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, "apart"))
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(1)
        timeout = None if self._certificate is None else HANDSHAKE_TIMEOUT
        self.servers = [
            await loop.create_server(
                self._accept,
                sock=listener,
                ssl=self.config.ssl,
                backlog=BACKLOG,
                ssl_handshake_timeout=timeout,
            )
            for listener in sockets or []
        ]
        self.started = True

    def _accept(self) -> HttpConnection:
        return HttpConnection(self.connections, self.config, self.server_state, self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        """Look after connections, metrics and files; whether to stop."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_sweep:
            self._next_sweep = now + self.connections.limits.sweep_interval
            self.connections.sweep(now)
        if now >= self._next_look:
            self._next_look = now + 1.0
            self._gateway.sample()
            if self._certificate is not None:
                self._certificate.reload_if_changed()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let calls under way end, then end them, and close."""
        await self._stop_listening(sockets or [])
        if not self.force_exit:
            await asyncio.sleep(_LAST_READS)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if not await self._all_ended(self._settings.drain_timeout):
            under_way = len(self.server_state.tasks)
            logger.warning("%d requests are still under way: they are given up", under_way)
            await self._gateway.give_up()
            await self._all_ended(_LAST_WORDS)
        for connection in tuple(self.connections.all):
            connection.cut_off()
        await self.lifespan.shutdown()
        self._gateway.sample()  # with several workers, what was counted outlives its process
        logger.info("stopped")

    async def _stop_listening(self, listeners: list[socket.socket]) -> None:
        """Close the sockets; who has connected to them already gets an answer."""
        # Closing a socket that listens resets who waits in it, so another handle takes them out.
        waiting = [listener.dup() for listener in listeners]
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        for listener in waiting:
            with listener:
                listener.setblocking(False)
                late = [self._take_in(client) for client in _accept_all(listener)]
            await asyncio.gather(*late, return_exceptions=True)

    async def _take_in(self, client: socket.socket) -> None:
        """Serve a connection that was accepted by hand."""
        timeout = None if self._certificate is None else _LAST_WORDS
        await asyncio.get_running_loop().connect_accepted_socket(
            self._accept, client, ssl=self.config.ssl, ssl_handshake_timeout=timeout
        )

    async def _all_ended(self, timeout: float) -> bool:
        """Wait for all answers to leave; whether they did."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while self.server_state.connections or self.server_state.tasks:
            now = loop.time()
            if self.force_exit or now >= until:
                return False
            self.connections.sweep(now)
            await asyncio.sleep(_POLL)
        return True
