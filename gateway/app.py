"""The application: a small ASGI layer in front of FastAPI.

Every request passes :class:`Gateway`: it gets its id, its access and its share are checked, and a
plain read is answered at once. All else goes on to FastAPI, which validates, documents and answers
alike. Whatever became of it is told to the log, the metrics and the traces.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from gateway import errors
from gateway.api import build_api
from gateway.auth import OPEN_PATHS, Access, Grant, Refusal, RequestHeaders, Token
from gateway.context import RequestContext, new_request_id
from gateway.direct import REMEMBER, DirectAnswer
from gateway.failures import JSON, StreamFailed, failure
from gateway.limits import BodyBudget, Shares
from gateway.logs import RequestLog
from gateway.metrics import Metrics, Sample
from gateway.proxies import Proxies, Seen
from gateway.routes.control_table import OLD_READ_PATHS, OLD_STREAM_PATHS, is_old
from gateway.routes.services import Services
from gateway.routes.streams import STREAM_PATHS, TICKET_PARAMETER
from gateway.routes.table import Place, placed
from gateway.routes.tickets import TICKETS_PATH
from gateway.settings import Settings, SettingsError
from gateway.shortcuts import Answering, Known, RecurringRead, Surroundings
from gateway.streams import StatusFeed
from gateway.tickets import Tickets, new_key
from gateway.tracing import Tracing
from gateway.upstream import CallTimes, Upstream
from zapcore.codec import Message
from zapcore.errors import Overloaded, ZapError
from zapcore.methods import Method
from zapcore.pool import ConnectionPool, PoolLimits
from zapcore.zwing.handshake import Expected
from zapcore.zwing.identity import Identity

logger = logging.getLogger(__name__)

_TRACES_TIME = 3.0
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Gateway:
    """The ASGI application that a server runs.

    Args:
        settings: all settings.
        identity: who the gateway is towards the netrunner server.
        server: whom to accept as that server.
        ticket_key: what stream tickets are made with; workers of one gateway share it.
        tracing: where spans go; None for no traces.
        request_log: where the line of each request goes; to Python's logging where None.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        server: Expected,
        *,
        ticket_key: bytes | None = None,
        tracing: Tracing | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        self.metrics = Metrics()
        self.pool = ConnectionPool(
            settings.upstream,
            identity,
            server,
            settings.connections,
            _pool_limits(settings),
            self.metrics,
        )
        times = CallTimes(reading=settings.call_timeout, changing=settings.change_timeout)
        self.upstream = Upstream(self.pool, times, self.metrics, tracing)
        self.feed = StatusFeed(self.upstream, settings.max_streams)
        self.draining = False
        """Told to stop: not ready any more."""
        self.refusing = False
        """About to stop: takes no more calls."""
        self.hasty = False
        """Told to stop at once: traces that were not sent yet are lost."""
        self._settings = settings
        self._tracing = tracing
        self._log = request_log or RequestLog()
        self._access = Access(
            settings.load_tokens(),
            settings.allowed_host,
            settings.allowed_origin,
            read_posts=OLD_READ_PATHS | {TICKETS_PATH} if settings.old_api else {TICKETS_PATH},
            own_address=settings.host,
        )
        self._tickets = Tickets(ticket_key or new_key())
        self._proxies = Proxies(settings.root_path, settings.trusted_proxy)
        self._call_shares = Shares(settings.max_calls_per_token, "calls")
        self._stream_shares = Shares(settings.max_streams_per_token, "streams")
        self._bodies = BodyBudget(settings.max_bodies)
        self.count_connections: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """The server's connections, busy and idle; it puts its own here."""
        self._api = build_api(settings, self._lifespan)
        self._api.state.services = Services(
            upstream=self.upstream,
            feed=self.feed,
            tickets=self._tickets,
            access=self._access,
            is_draining=lambda: self.draining,
            sample=self.sample,
        )
        self._surroundings = Surroundings(
            access=self._access,
            shares=self._call_shares,
            upstream=self.upstream,
            goes_on=lambda: not self.draining,
            finished=self._finish,
            answer=self._answer_directly,
        )
        self._stream_paths = STREAM_PATHS | (OLD_STREAM_PATHS if settings.old_api else frozenset())
        self._reads = {
            place.path: (method, method.encode_request())
            for method, place in placed()
            if _is_plain_read(method, place)
        }

    @asynccontextmanager
    async def _lifespan(self, api: FastAPI) -> AsyncIterator[None]:
        del api
        async with self.pool:
            yield
            await self.feed.close()
        if self._tracing is not None:
            await self._send_traces(self._tracing)

    async def _send_traces(self, tracing: Tracing) -> None:
        """Give what is left of the traces a moment; their collector may be away."""
        sending = tracing.close()
        until = perf_counter() + _TRACES_TIME
        # A thread, a second signal, or the time may end the wait.
        while sending.is_alive() and not self.hasty and perf_counter() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    # What the process tells.

    def begin_drain(self) -> None:
        """The process was told to stop: be ready no more, and ask clients to go elsewhere."""
        self.draining = True

    def refuse_new(self) -> None:
        """The grace time is over: take no more calls, and end the streams."""
        self.draining = self.refusing = True
        self.feed.drain()

    async def give_up(self) -> None:
        """End the calls under way; each is answered with what is known of it."""
        await self.pool.close()

    def reload_tokens(self) -> None:
        """Read the tokens again. If they are unusable, the old ones stay."""
        try:
            tokens = self._settings.load_tokens()
        except SettingsError as error:
            logger.error("the old tokens stay: %s", error)
            return
        self._access.tokens = tokens
        self.feed.look_again()
        logger.info("read %d tokens", len(tokens))

    def sample(self) -> None:
        """Bring what is looked at now and then up to date."""
        busy, idle = self.count_connections()
        self.metrics.take(
            self.pool,
            Sample(
                busy_connections=busy,
                idle_connections=idle,
                readers=self.feed.readers,
                upstream_streams=self.feed.upstream_streams,
            ),
        )

    # Requests.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(headers) != len(scope["headers"]):
            headers = _combined(scope["headers"])
        seen = self._proxies.look(scope, headers)
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else new_request_id()
        context = RequestContext(request_id, scope["method"], seen.path, seen.client)
        context.old_api = self._settings.old_api and is_old(context.verb, context.path)
        if self._tracing is not None:
            self._tracing.begin(context, headers, seen.scheme)
        asked = _Asked(scope, headers, seen, _deciding(headers, seen), context)
        try:
            send = self._answering(send, context, asked.deciding.origin)
            await self._answer(asked, receive, send)
        finally:
            self._finish(asked.context)

    def _finish(self, context: RequestContext) -> None:
        seconds = perf_counter() - context.started
        self.metrics.request_finished(context, seconds)
        self._log.tell(context, seconds)
        if self._tracing is not None:
            self._tracing.end(context)

    async def _answer(self, asked: _Asked, receive: Receive, send: Send) -> None:
        verb, path = asked.context.verb, asked.seen.path
        if (twice := _comes_twice(asked)) is not None:
            await _refuse(send, asked.context, errors.NOT_HTTP, f"the header {twice} comes twice")
            return
        decision = self._access.check(
            verb, path, asked.seen.scheme, asked.deciding, self._ticket_holder(asked)
        )
        length = asked.headers.get(b"content-length", b"")
        if isinstance(decision, Refusal):
            await _refuse(send, asked.context, decision.kind, decision.detail)
        elif self._access.is_preflight(verb, asked.deciding):
            await _send(send, 204, b"", [*_PREFLIGHT_HEADERS])
        elif self.refusing and path not in OPEN_PATHS:
            detail = "it takes no more calls: ask again, or another one"
            await _refuse(send, asked.context, errors.STOPPING, detail)
        elif length.isdigit() and int(length) > self._settings.max_body:
            most = self._settings.max_body
            detail = f"{int(length)} bytes; at most {most} are taken (--max-body)"
            await _refuse(send, asked.context, errors.BODY_TOO_LARGE, detail)
        else:
            await self._share(asked, decision, receive, send)

    def _ticket_holder(self, asked: _Asked) -> Token | None:
        """Whose ticket came with the request; streams alone take one."""
        query = asked.scope["query_string"]
        if not query or asked.seen.path not in STREAM_PATHS:
            return None
        given = parse_qs(query.decode("latin-1")).get(TICKET_PARAMETER)
        return self._tickets.redeem(given[0], self._access.tokens) if given else None

    async def _share(self, asked: _Asked, grant: Grant, receive: Receive, send: Send) -> None:
        """Dispatch, within the share of the token."""
        context = asked.context
        if grant.token is not None:
            context.token_name = grant.token.name
        context.streaming = context.path in self._stream_paths
        shares = self._stream_shares if context.streaming else self._call_shares
        full = shares.take(grant)
        if full is not None:
            await _refuse(send, context, errors.TOO_MANY_REQUESTS, full)
            return
        try:
            await self._dispatch(asked, grant, receive, send)
        finally:
            shares.give_back(grant)

    async def _dispatch(self, asked: _Asked, grant: Grant, receive: Receive, send: Send) -> None:
        context, scope = asked.context, asked.scope
        read = self._reads.get(context.path) if context.verb == "GET" else None
        if read and not scope["query_string"] and TIMEOUT_HEADER not in asked.headers:
            context.route = context.path
            known = self._known(asked, grant, *read)  # by the tokens that the grant is of
            exchange = self.upstream.exchange(*read, context=context)
            await self._read(exchange, context, send)
            self._offer_shortcut(asked, known)
            return
        # What FastAPI puts into its scope, streams would keep as long as they last.
        inner = {**scope, "state": {"context": context, "grant": grant}}
        try:
            with self._bodies.counting(receive, context) as receive_counted:
                await self._api(inner, receive_counted, send)
        finally:
            if "route" in inner:
                context.route = inner["route"].path
        del inner, receive_counted
        if context.continuation is not None:
            await self._go_on(context.continuation, asked, receive, send)

    async def _go_on(
        self, continuation: ASGIApp, asked: _Asked, receive: Receive, send: Send
    ) -> None:
        """Let a stream stream, now that nothing of the route is left in memory."""
        try:
            await continuation(asked.scope, receive, send)
        except Overloaded as error:
            await _send_failure(send, asked.context, error)
        except StreamFailed as failed:
            context, kind, line = asked.context, failed.kind, failed.as_line
            await _refuse(send, context, kind, str(failed), as_line=line)

    def _known(
        self, asked: _Asked, grant: Grant, method: Method[Message, Message], payload: bytes
    ) -> Known:
        named = asked.headers.get(b"x-request-id") == asked.context.request_id.encode()
        return Known(
            method=method,
            payload=payload,
            grant=grant,
            tokens=self._access.tokens,
            first=asked.context,
            names_id=named,
            origin=asked.deciding.origin,
        )

    def _offer_shortcut(self, asked: _Asked, known: Known) -> None:
        """Let the connection answer directly when the same request comes again."""
        remember = asked.scope.get("extensions", {}).get(REMEMBER)
        if remember is None or asked.context.status != 200 or self._tracing is not None:
            return
        headers = [_JSON_TYPE, *self._headers_for(known.origin)]
        remember(RecurringRead(self._surroundings, known, headers))

    async def _answer_directly(
        self, answering: Answering, known: Known, context: RequestContext, answer: DirectAnswer
    ) -> None:
        """Answer a request that took a shortcut, which was longer than it looked."""
        await self._read(answering, context, self._answering(answer.send, context, known.origin))

    async def _read(self, answering: Answering, context: RequestContext, send: Send) -> None:
        """Answer a read without parameters as FastAPI would, without what it costs per call."""
        try:
            body = await answering
        except ZapError as error:
            await _send_failure(send, context, error)
            return
        except Exception:
            rpc, request_id = context.rpc, context.request_id
            logger.exception("%s failed in the gateway (request %s)", rpc, request_id)
            document = errors.defect(request_id=request_id, rpc=rpc)
            await _send_problem(send, context, errors.INTERNAL, document)
            return
        await _send(send, 200, body, [_JSON_TYPE])

    def _headers_for(self, origin: str) -> list[tuple[bytes, bytes]]:
        """The headers of every answer to a page, or to nobody's page."""
        if not self._access.allows(origin):
            return [*_COMMON_HEADERS]
        allowed = (b"access-control-allow-origin", origin.encode("latin-1"))
        return [*_COMMON_HEADERS, allowed, *_CORS_HEADERS]

    def _answering(self, send: Send, context: RequestContext, origin: str) -> Send:
        """A ``send`` that adds the headers of every answer, and counts it."""
        common = [*self._headers_for(origin), (b"x-request-id", context.request_id.encode())]

        async def send_with_headers(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                closing = _CLOSE if self.draining else ()
                message["headers"] = [*message["headers"], *common, *closing]
                context.status = message["status"]
            else:
                size = len(message.get("body", b""))
                context.sent += size
                if context.streaming:
                    self.metrics.stream_sent(size)
            await send(message)

        return send_with_headers


class _Asked(NamedTuple):
    """A request, and what is known of it before it is answered."""

    scope: Scope
    headers: dict[bytes, bytes]
    seen: Seen
    deciding: RequestHeaders
    context: RequestContext


TIMEOUT_HEADER = b"x-request-timeout"
_JSON_TYPE = (b"content-type", JSON.encode())

_COMMON_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),  # a page in a frame could be made to take a click for ours
)


_CLOSE = ((b"connection", b"close"),)
_CORS_HEADERS = (
    (b"access-control-expose-headers", b"X-Request-ID, Retry-After"),
    (b"vary", b"Origin"),
)
_PREFLIGHT_HEADERS = (
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, Grpc-Timeout, Last-Event-ID, X-Request-ID,"
        b" X-Request-Timeout, Traceparent, Tracestate",
    ),
    (b"access-control-max-age", b"600"),
)


def _combined(given: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers of one name as one list of values (RFC 9110, section 5.3)."""
    headers: dict[bytes, bytes] = {}
    for name, value in given:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


_ONCE = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"authorization")


def _comes_twice(asked: _Asked) -> str | None:
    """A header that decides and comes more than once: others might heed the other one."""
    given = asked.scope["headers"]
    if len(given) == len(asked.headers):
        return None
    names = [name for name, _ in given]
    return next((name.decode() for name in _ONCE if names.count(name) > 1), None)


def _deciding(headers: dict[bytes, bytes], seen: Seen) -> RequestHeaders:
    get = headers.get
    return RequestHeaders(
        get(b"host", b"").decode("latin-1"),
        get(b"origin", b"").decode("latin-1"),
        get(b"sec-fetch-site", b"").decode("latin-1"),
        get(b"sec-fetch-mode", b"").decode("latin-1"),
        get(b"authorization", b"").decode("latin-1"),
        seen.host,
    )


def _pool_limits(settings: Settings) -> PoolLimits:
    return PoolLimits(
        call_timeout=settings.call_timeout,
        acquire_timeout=settings.acquire_timeout,
        connect_timeout=settings.connect_timeout,
        max_calls=settings.max_calls,
    )


def _is_plain_read(method: Method[Message, Message], place: Place) -> bool:
    """Whether a route is nothing but its RPC: nothing to validate, nothing to choose."""
    empty = not dataclasses.fields(cast("Any", method.request))
    return method.read_only and not method.streaming and empty and place.timeout is None


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(
    send: Send, context: RequestContext, kind: errors.Kind, detail: str, *, as_line: bool = False
) -> None:
    document = errors.problem(kind, detail, request_id=context.request_id)
    await _send_problem(send, context, kind, document, as_line=as_line)


async def _send_failure(send: Send, context: RequestContext, error: ZapError) -> None:
    """What a call, or a stream, failed with before anything was said."""
    document = errors.zap_problem(error, request_id=context.request_id, rpc=context.rpc)
    await _send_problem(send, context, errors.kind_of(error), document)


async def _send_problem(
    send: Send,
    context: RequestContext,
    kind: errors.Kind,
    document: errors.Problem,
    *,
    as_line: bool = False,
) -> None:
    answer = failure(context, kind, document, as_line=as_line)
    headers = [(b"content-type", answer.media_type.encode())]
    headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    await _send(send, answer.status, answer.body, headers)
