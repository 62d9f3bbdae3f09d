"""No output may show a secret: what is secret, what is output, and the search for one in the other.

tests/conftest.py runs it over a whole session. Whatever makes a secret is watched, and all output
goes into one file, which is searched once everything has been said: a token that a command prints
is known only afterwards.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import re
import struct
import sys
import tempfile
import threading
import traceback
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway import auth, tickets
from zapcore.zwing import algorithms
from zapcore.zwing.identity import Identity

BLOCK = 16
SHORTEST = 2 * BLOCK - 1
"""Bytes. What is this long or longer has a whole block in it, wherever in a file it stands."""

_PLAINEST = 8
"""Different bytes that a secret has at least: the tests also make keys of zeros."""

_LARGEST_IDENTITY_FILE = 64 * 1024
_MOST_TOLD = 50
COLLECTION = "the collection of tests"

_TOKEN = re.compile(r"zgw_[A-Za-z0-9_-]{43}")
_OF_CLIENTS = ("httpx", "httpcore")
"""Loggers of the tests' own clients, which tell what they ask for."""


class Secret(NamedTuple):
    """A secret, and what it is."""

    kind: str
    value: bytes


class Finding(NamedTuple):
    """Where a secret shows, and how. It does not tell the secret."""

    kind: str
    form: str
    where: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.form}: {self.where}"


def forms(value: bytes) -> dict[bytes, str]:
    """How the bytes of a secret may show in an output, each with its name."""
    # A whole number of groups: base64 of something longer that begins with it is the same so far.
    groups = value[: len(value) // 3 * 3]
    found = [
        (value, "as it is"),
        (value.decode("latin-1").encode(), "as text"),
        (value.hex().encode(), "in hex"),
        (value.hex().upper().encode(), "in HEX"),
        (base64.b64encode(groups), "in base64"),
        (base64.urlsafe_b64encode(groups), "in URL-safe base64"),
        (repr(value)[2:-1].encode(), "as Python shows it"),
        (repr(value + b"\"'")[2:-4].encode(), "as Python shows it"),  # among other bytes
        (str(list(value))[1:-1].encode(), "as numbers"),
    ]
    return {form: name for form, name in reversed(found) if len(form) >= SHORTEST}


class SecretSearch:
    """Remembers secrets and collects output; `findings` brings them together."""

    def __init__(self) -> None:
        self._secrets: dict[Secret, set[str]] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this does
        self._places: list[str] = []
        self._begins: list[int] = []
        self._size = 0
        self._lock = threading.RLock()  # a signal's handler may log

    def remember(self, kind: str, value: bytes | str, *, may_show_in: str | None = None) -> None:
        """From now on, and before, this is a secret.

        Args:
            kind: what it is, for people.
            value: the secret.
            may_show_in: the place whose purpose is to show it.
        """
        secret = Secret(kind, value.encode() if isinstance(value, str) else bytes(value))
        if len(set(secret.value)) < _PLAINEST:
            return
        with self._lock:
            shown = self._secrets.setdefault(secret, set())
            if may_show_in is not None:
                shown.add(may_show_in)

    def collect(self, where: str, output: str | bytes) -> None:
        """Take an output, or the next part of it."""
        data = output.encode("utf-8", "surrogatepass") if isinstance(output, str) else output
        if not data:
            return
        with self._lock:
            if self._file.closed:
                return
            if not self._places or self._places[-1] != where:
                self._places.append(where)
                self._begins.append(self._size)
            self._file.write(data)
            self._size += len(data)

    def findings(self) -> list[Finding]:
        """Every secret that shows, once per form and place."""
        with self._lock:
            return sorted(set(self._search(self._index())))

    def close(self) -> None:
        """Forget the output, and take no more."""
        with self._lock:
            self._file.close()

    def _index(self) -> dict[bytes, list[tuple[Secret, str, bytes, int]]]:
        """Each block that a form begins with, wherever in a block of the file the form does.

        The file is cut into blocks: a form that stands in it has, within its first bytes, one that
        is here.
        """
        index: dict[bytes, list[tuple[Secret, str, bytes, int]]] = {}
        for secret in self._secrets:
            for form, name in forms(secret.value).items():
                for offset in range(BLOCK):
                    block = form[offset : offset + BLOCK]
                    index.setdefault(block, []).append((secret, name, form, offset))
        return index

    def _search(
        self, index: dict[bytes, list[tuple[Secret, str, bytes, int]]]
    ) -> Iterator[Finding]:
        for position, block in self._hits(index.keys()):
            for secret, name, form, offset in index[block]:
                begin = position - offset
                if begin < 0 or self._read(begin, len(form)) != form:
                    continue
                where = self._places[bisect_right(self._begins, begin) - 1]
                if where not in self._secrets[secret]:
                    yield Finding(secret.kind, name, where)

    def _hits(self, known: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """The blocks of the file that are known, with their positions."""
        wanted = frozenset(known)
        many = 4096 * BLOCK
        for begin in range(0, self._size, many):
            data = self._read(begin, many)
            data += bytes(-len(data) % BLOCK)
            blocks = [block for (block,) in struct.iter_unpack(f"{BLOCK}s", data)]
            if wanted.isdisjoint(blocks):
                continue
            for number, block in enumerate(blocks):
                if block in wanted:
                    yield begin + number * BLOCK, block

    def _read(self, begin: int, size: int) -> bytes:
        self._file.seek(begin)
        data = self._file.read(size)
        self._file.seek(self._size)
        return data


# Keys.


def private_parts(
    ed25519: bytes, ml_dsa: bytes, ml_kem: bytes, x25519: bytes
) -> Iterator[tuple[str, bytes]]:
    """The secret parts of an identity's private keys, by name."""
    yield "Ed25519 key", ed25519
    yield "X25519 key", x25519
    # The expanded forms begin with public parts, or have some inside. The slices begin at whole
    # groups of base64, counted from the start of the key: so they show in the base64 of all of it.
    if len(ml_dsa) == algorithms.ML_DSA_EXPANDED_SIZE:
        yield "ML-DSA-65 key", ml_dsa[33:63]
        yield "ML-DSA-65 key", ml_dsa[129:225]
    else:
        yield "ML-DSA-65 key", ml_dsa
    if len(ml_kem) == algorithms.ML_KEM_EXPANDED_SIZE:
        yield "ML-KEM-768 key", ml_kem[:96]
        yield "ML-KEM-768 key", ml_kem[-30:]
    else:
        yield "ML-KEM-768 key", ml_kem


def private_parts_of_file(path: Path) -> Iterator[tuple[str, bytes]]:
    """Those in an identity file; none where it is not one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if not path.is_file() or path.stat().st_size > _LARGEST_IDENTITY_FILE:
            return
        document = json.loads(path.read_bytes())
        names = ("ed25519", "ml_dsa", "ml_kem", "x25519")
        yield from private_parts(*(base64.b64decode(document[name]) for name in names))


# A session.


class Session:
    """The search over a session of pytest: what it watches, and where it is."""

    def __init__(self, search: SecretSearch) -> None:
        self.search = search
        self.test = COLLECTION
        """What runs now. Without its parameters: they may be secrets themselves."""

    def watch(self) -> None:
        """Learn of every secret that is made here, and of every output that pytest does not have.

        Modules must not have been imported yet that take these functions by name.
        """
        _wrap(auth, "new_token", self._token)
        _wrap(tickets.Tickets, "issue", self._ticket)
        _wrap(tickets, "new_key", lambda made, *_: self.search.remember("ticket key", made))
        _wrap(Identity, "__init__", self._identity)
        _wrap(pytest.CaptureFixture, "readouterr", self._captured)
        _wrap(logging.Logger, "handle", self._logged)

    def _token(self, made: str) -> None:
        on_purpose = sys._getframe(2).f_globals["__name__"] == "gateway.commands.token"
        self.remember_token(made, may_show_in=self.test if on_purpose else None)

    def remember_token(self, token: str, *, may_show_in: str | None) -> None:
        """Remember the random part."""
        random = token.partition("_")[2]
        self.search.remember("token", random, may_show_in=may_show_in)

    def _ticket(self, made: str, *_: object) -> None:
        self.search.remember("stream ticket", made.split(".")[1])

    def _identity(self, _: None, made: Identity, *given: object) -> None:
        ed25519, x25519 = made._ed25519.private_bytes_raw(), made.x25519.private_bytes_raw()
        for kind, part in private_parts(ed25519, made._ml_dsa.private, made.ml_kem.private, x25519):
            self.search.remember(kind, part)

    def _captured(self, read: Any, *_: object) -> None:
        for text in read:
            if isinstance(text, str):
                self.search.collect(self.test, text)

    def _logged(self, _: None, __: logging.Logger, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in _OF_CLIENTS:
            return
        parts = [repr(vars(record))]
        with suppress(Exception):
            parts.append(record.getMessage())
        if record.exc_info and record.exc_info[1]:
            parts += traceback.format_exception(record.exc_info[1])
        self.search.collect(self.test, "\n".join(parts))

    def command(self, arguments: Iterable[object], *outputs: str) -> None:
        """Take what a command said on its streams, and learn the secrets that it made."""
        words = list(map(str, arguments))
        plain = [word for word in words[:2] if word.isalpha()]
        where = f"`{' '.join(['zap-gateway', *plain])}`, run by {self.test}"
        for word in words:
            for kind, part in private_parts_of_file(Path(word)):
                self.search.remember(kind, part)
        for output in outputs:
            self.search.collect(where, output)
            if plain == ["token", "new"]:
                for token in _TOKEN.findall(output):
                    self.remember_token(token, may_show_in=where)

    def begins(self, node: str) -> None:
        """A test begins."""
        self.test = node.partition("[")[0]

    def reported(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Take what pytest caught of a test."""
        for title, text in report.sections:
            # The log has been collected already. A test's report repeats what those before had.
            if "log" not in title and (report.when == "collect" or title.endswith(report.when)):
                self.search.collect(self.test, text)

    def verdict(self) -> pytest.TestReport | None:
        """A report of a failure, where a secret shows."""
        found = self.search.findings()
        if not found:
            return None
        lines = ["Secrets show in the output of the tests, or of the commands that they ran:"]
        lines += [f"  {each}" for each in found[:_MOST_TOLD]]
        if len(found) > _MOST_TOLD:
            lines.append(f"  … and {len(found) - _MOST_TOLD} more")
        return pytest.TestReport(
            nodeid="tests/conftest.py::no secret shows in any output",
            location=("tests/conftest.py", None, "no secret shows in any output"),
            keywords={},
            outcome="failed",
            longrepr="\n".join(lines),
            when="teardown",
        )


def _wrap(holder: object, name: str, told: Callable[..., None]) -> None:
    """Let a function's result, and what it was called with, be told each time it returns."""
    original = getattr(holder, name)

    @functools.wraps(original)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        told(result, *arguments)
        return result

    setattr(holder, name, wrapper)


session = Session(SecretSearch())
"""That of this process."""
