"""Who may ask: Host and Origin rules against other web pages, bearer tokens against strangers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from gateway.errors import FORBIDDEN, UNAUTHENTICATED, Kind

Scope = Literal["read", "operate"]

STATIC_FILES = frozenset(
    {
        *("icon.svg", "docs.js", "swagger-ui-bundle.js", "swagger-ui.css"),
        *("console.css", "console.js", "api.js", "dom.js", "events.js", "nodes.js"),
        *("operations.js", "snapshots.js", "stream.js"),
    }
)
"""Below /static."""

OPEN_PATHS = frozenset(
    {
        *("/healthz", "/readyz", "/", "/docs", "/openapi.json", "/favicon.ico"),
        *(f"/static/{name}" for name in STATIC_FILES),
    }
)
"""What needs no token, as it tells nothing of the cluster. Each by its name: a prefix would also
open what comes below it one day."""

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN_PREFIX = "zgw_"  # noqa: S105 - what tokens start with, for secret scanners to find
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9_.-]{1,64})[ \t]+(?P<scope>read|operate)"
    r"[ \t]+sha256:(?P<digest>[0-9a-f]{64})"
)
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+))(?::\d{1,5})?")
_MAX_FILE_SIZE = 1024 * 1024
MAX_TOKENS = 256
"""Each request's token is compared with every one of them."""


class TokenFileError(Exception):
    """A token file can't be read, or a line of it is malformed."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept: a name, what it allows, and a digest of the secret."""

    name: str
    scope: Scope
    digest: bytes


def new_token() -> str:
    """A fresh secret of 256 bits."""
    return _TOKEN_PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> bytes:
    """What is kept of a secret. It has 256 random bits, so a plain digest is enough."""
    return hashlib.sha256(secret.encode()).digest()


def token_line(name: str, scope: str, secret: str) -> str:
    """A token's line in a token file.

    Raises:
        TokenFileError: the name or scope has another form.
    """
    line = f"{name} {scope} sha256:{digest_of(secret).hex()}"
    if _LINE.fullmatch(line) is None:
        raise TokenFileError(f"{name!r} is no token name: up to 64 letters, digits, dots, dashes")
    return line


def load_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens in a file: one `name scope sha256:digest` per line, # for comments.

    Raises:
        TokenFileError: unreadable, too large, malformed (with the line's number) or empty.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_SIZE + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"can't read {path}: {error}") from error
    if len(data) > _MAX_FILE_SIZE:
        raise TokenFileError(f"{path} is over {_MAX_FILE_SIZE} bytes")
    tokens = parse_tokens(text.split("\n"), str(path))
    if not tokens:
        raise TokenFileError(f"{path} has no tokens: `zap-gateway token new NAME` makes one")
    return tokens


def parse_tokens(lines: Iterable[str], source: str) -> tuple[Token, ...]:
    """The tokens that lines tell, each `name scope sha256:digest`; # begins a comment.

    Raises:
        TokenFileError: a line has another form. The text tells its number, never what it holds.
    """
    tokens = []
    for number, line in enumerate(lines, 1):
        content = line.split("#", 1)[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise TokenFileError(
                f"{source}, line {number}: not `name read|operate sha256:…`;"
                " `zap-gateway token new NAME` prints such a line"
            )
        scope: Scope = "read" if match["scope"] == "read" else "operate"
        tokens.append(Token(match["name"], scope, bytes.fromhex(match["digest"])))
    return tuple(tokens)


def unique(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """The same tokens, not too many, and no two of one name: the log and limits go by it.

    Raises:
        TokenFileError: they are not so.
    """
    if len(tokens) > MAX_TOKENS:
        raise TokenFileError(f"{len(tokens)} tokens; at most {MAX_TOKENS} are taken")
    names = Counter(token.name for token in tokens)
    for name, count in names.items():
        if count > 1:
            raise TokenFileError(f"{count} tokens are named {name!r}: give each its own name")
    return tokens


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a bind address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Refusal(NamedTuple):
    """Why a request is not let in."""

    kind: Kind
    detail: str


class Grant(NamedTuple):
    """Who is let in: the holder of a token, or everybody on this machine (None)."""

    token: Token | None


EVERYBODY = Grant(None)


class RequestHeaders(NamedTuple):
    """The headers that decide; empty where absent."""

    host: str
    origin: str
    fetch_site: str
    fetch_mode: str
    authorization: str
    forwarded_host: str = ""
    """The Host that a trusted proxy was asked for. A page may pose as a proxy on its own machine,
    so this one never replaces the other."""


class Access:
    """The rules.

    Without tokens every request must come from this machine in every sense: a Host that names it
    (a page elsewhere may have its own name resolve to us: DNS rebinding), and no Origin but ours.

    Args:
        tokens: who may ask; empty lets in everybody on this machine.
        allowed_hosts: names beside the loopback ones that Host may give.
        allowed_origins: origins of web pages that may ask.
        read_posts: paths where POST changes nothing, so that the scope `read` is enough.
        own_address: what the gateway listens on; an address can't be made to lead elsewhere.
    """

    def __init__(
        self,
        tokens: tuple[Token, ...] = (),
        allowed_hosts: tuple[str, ...] = (),
        allowed_origins: tuple[str, ...] = (),
        read_posts: Set[str] = frozenset(),
        own_address: str = "localhost",
    ) -> None:
        self.tokens = tokens
        named = (*allowed_hosts, own_address)
        self._hosts = _LOOPBACK_NAMES | {host.lower() for host in named if host}
        self._check_host = not tokens or bool(allowed_hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
        self._read_posts = read_posts

    def stands(self, grant: Grant) -> bool:
        """Whether who was let in would be let in now: tokens can be taken away."""
        return grant.token is None or grant.token in self.tokens

    def check(
        self,
        verb: str,
        path: str,
        scheme: str,
        headers: RequestHeaders,
        ticket_holder: Token | None = None,
    ) -> Grant | Refusal:
        """Whether a request is let in, and as whom.

        Args:
            verb: the request's method.
            path: without the root path.
            scheme: http or https, as the client sees it.
            headers: those that decide.
            ticket_holder: whose ticket came with the request, where the path takes one.
        """
        if (stranger := self._unknown_host(headers)) is not None:
            return Refusal(
                FORBIDDEN,
                f"the Host {stranger[:100]!r} is not one of this gateway's names:"
                " use 127.0.0.1 or localhost, or start it with --allowed-host",
            )
        if (refusal := self._check_origin(verb, path, scheme, headers)) is not None:
            return refusal
        if not self.tokens or path in OPEN_PATHS or self.is_preflight(verb, headers):
            return EVERYBODY
        if ticket_holder is not None and not headers.authorization:
            return Grant(ticket_holder)
        return self._check_token(verb, path, headers.authorization)

    def allows(self, origin: str) -> bool:
        """Whether web pages of an origin were let in by name."""
        return bool(origin) and origin.lower() in self._origins

    def is_preflight(self, verb: str, headers: RequestHeaders) -> bool:
        """Whether a browser asks what a page that was let in may send; no token comes with that."""
        return verb == "OPTIONS" and self.allows(headers.origin)

    def _unknown_host(self, headers: RequestHeaders) -> str | None:
        if not self._check_host:
            return None
        if _host_name(headers.host) not in self._hosts:
            return headers.host
        forwarded = headers.forwarded_host
        return forwarded if forwarded and _host_name(forwarded) not in self._hosts else None

    def _check_origin(
        self, verb: str, path: str, scheme: str, headers: RequestHeaders
    ) -> Refusal | None:
        if self.allows(headers.origin):
            return None
        origin = headers.origin.lower()
        own = f"{scheme}://{headers.forwarded_host or headers.host}".lower()
        foreign = bool(origin) and origin != own
        site = headers.fetch_site
        visit = verb == "GET" and headers.fetch_mode == "navigate" and not path.startswith("/v1/")
        if foreign or (site not in ("", "same-origin", "none") and not visit):
            return Refusal(
                FORBIDDEN,
                f"a page of another site ({(headers.origin or site)[:100]!r}) may not use this"
                " gateway; --allowed-origin lets a site in",
            )
        return None

    def _check_token(self, verb: str, path: str, authorization: str) -> Grant | Refusal:
        scheme, _, secret = authorization.partition(" ")
        token = self._find(secret.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            return Refusal(
                UNAUTHENTICATED,
                "send a token of this gateway: Authorization: Bearer …"
                if not authorization
                else "the token is not one of this gateway's",
            )
        reads = verb in ("GET", "HEAD") or (verb == "POST" and path in self._read_posts)
        if not reads and token.scope != "operate":
            return Refusal(
                FORBIDDEN, f"the token {token.name!r} may only read; this needs the scope operate"
            )
        return Grant(token)

    def _find(self, secret: str) -> Token | None:
        """Every token is compared, in constant time each."""
        digest = digest_of(secret)
        found = None
        for token in self.tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found


def _host_name(host: str) -> str:
    """A Host header without its port; empty for what is no host."""
    match = _HOST.fullmatch(host.lower())
    return (match["v6"] or match["name"]) if match else ""
