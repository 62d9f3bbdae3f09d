"""The log's lines: their two forms, what can't forge them, and when they are written."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.context import RequestContext
from gateway.logs import (
    JsonFormatter,
    Lines,
    LinesHandler,
    RequestLog,
    TextFormatter,
    configure_logging,
)

HANG = 10.0
_LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def record(message: str = "it happened", level: int = logging.INFO, **extra: object) -> Any:
    return logging.getLogger("gateway.test").makeRecord(
        "gateway.test", level, __file__, 1, message, (), None, extra=extra
    )


def context(**more: Any) -> RequestContext:
    """A request as far as the log is concerned."""
    made = RequestContext("id-1", "GET", "/v1/status", "192.0.2.7")
    made.status, made.route = 200, "/v1/status"
    for name, value in more.items():
        setattr(made, name, value)
    return made


def lines_of(*contexts: RequestContext) -> list[dict[str, Any]]:
    """What the log of requests writes."""
    stream = io.StringIO()
    log = RequestLog(Lines(stream))
    for each in contexts:
        log.tell(each, 0.25)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def every_request() -> Iterator[None]:
    """Requests are told whatever the level of all else is."""
    logger = logging.getLogger("gateway.request")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(before)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, and afterwards as it was before."""
    found = logging.getLogger()
    handlers, level = found.handlers[:], found.level
    names = ("uvicorn", "uvicorn.error", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    yield found
    found.handlers[:] = handlers
    found.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


# JSON.


def test_a_line_of_json_tells_time_level_logger_and_message():
    line = JsonFormatter().format(record("connected to %s", upstream="a:1"))
    told = json.loads(line)
    at = datetime.strptime(told.pop("time"), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - at).total_seconds()) < HANG
    assert told == {
        "level": "info",
        "logger": "gateway.test",
        "message": "connected to %s",
        "upstream": "a:1",
    }


def test_a_traceback_is_part_of_its_line_of_json():
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        failed = record(level=logging.ERROR)
        failed.exc_info = sys.exc_info()
    line = JsonFormatter().format(failed)
    assert "\n" not in line
    assert "ValueError: one\ntwo" in json.loads(line)["exception"]


def test_times_have_three_digits_and_are_utc(monkeypatch: pytest.MonkeyPatch):
    made = record()
    for created, told in ((0.0, "1970-01-01T00:00:00.000Z"), (1.0049, "1970-01-01T00:00:01.004Z")):
        made.created = created
        assert json.loads(JsonFormatter().format(made))["time"] == told


# Text.


def test_a_line_of_text_is_for_people():
    line = TextFormatter().format(record("request", logging.WARNING, status=503, route="/v1/x"))
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d WARNING gateway\.test: request status=503 route=/v1/x", line
    )


def test_a_traceback_in_text_follows_its_line():
    try:
        raise ValueError("never mind")
    except ValueError:
        failed = record(level=logging.ERROR)
        failed.exc_info = sys.exc_info()
    first, *rest = TextFormatter().format(failed).splitlines()
    assert first.endswith("gateway.test: it happened")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: never mind"


# Nobody forges a line.

NASTY = [
    'x\n{"level":"info","message":"forged"}',
    "x\r\nHTTP",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "\x00\x7f",
    "a\u2028b\u2029c\x85d",
    "\ud800 half a character",
    "\u202egnirts",
    "ä ö ü 日本",
]


def controls(line: str) -> list[str]:
    """What a terminal, or a reader of lines, takes for more than a letter."""
    return [char for char in line if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")]


@pytest.mark.parametrize("text", NASTY)
def test_what_clients_send_stays_within_its_line_of_json(text: str):
    line = JsonFormatter().format(record(text, path=text))
    told = json.loads(line)
    if "\ud800" not in text:
        assert (told["message"], told["path"]) == (text, text)
    # Among them DEL, U+009B, which is an escape too, and the line breaks beyond ASCII.
    assert controls(line) == []


@pytest.mark.parametrize("text", NASTY)
def test_what_clients_send_stays_within_its_line_of_text(text: str):
    line = TextFormatter().format(record(text, path=text))
    assert controls(line) == []
    assert line.isprintable()


@given(st.text())
def test_no_text_breaks_a_line(text: str):
    told = record(text, path=text, client=text)
    # The feed and the return are what a line ends with; JSON's further ones are told above.
    as_json = JsonFormatter().format(told)
    assert not re.search("[\x00-\x1f]", as_json)
    assert json.loads(as_json)["path"] == text
    assert not _LINE_BREAKS.search(TextFormatter().format(told))


def test_a_request_of_any_path_is_one_line():
    stream = io.StringIO()
    log = RequestLog(Lines(stream))
    for text in NASTY:
        log.tell(context(path="/" + text), 0.1)
    lines = stream.getvalue().split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(NASTY)
    assert all(json.loads(line)["request_id"] == "id-1" for line in lines)


def test_a_long_path_is_cut():
    (line,) = lines_of(context(path="/" + "x" * 100_000))
    assert len(line["path"]) == 500
    assert line["path"].startswith("/xxx")


# Requests.


def test_what_the_line_of_a_request_tells():
    (line,) = lines_of(
        context(
            token_name="me",  # noqa: S106
            rpc="Status",
            outcome="ok",
            upstream_seconds=0.0123456,
            received=7,
            sent=70,
        )
    )
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "gateway.request",
        "message": "request",
        "request_id": "id-1",
        "client": "192.0.2.7",
        "method": "GET",
        "path": "/v1/status",
        "route": "/v1/status",
        "status": 200,
        "duration_ms": 250.0,
        "token": "me",
        "rpc": "Status",
        "outcome": "ok",
        "upstream_ms": 12.346,
        "received_bytes": 7,
        "sent_bytes": 70,
    }


def test_what_does_not_apply_is_left_out():
    (line,) = lines_of(context(status=404, code="not_found", route="other"))
    assert line["code"] == "not_found"
    assert not {"token", "rpc", "outcome", "upstream_ms", "received_bytes"} & line.keys()


@pytest.mark.parametrize(
    ("status", "route", "level"),
    [
        (200, "/v1/status", "info"),
        (404, "other", "info"),
        (499, "other", "info"),
        (500, "/v1/status", "warning"),
        (503, "/v1/status", "warning"),
        (200, "/healthz", "debug"),
        (200, "/readyz", "debug"),
        (200, "/metrics", "debug"),
        (403, "/metrics", "debug"),
        (503, "/readyz", "warning"),
    ],
)
def test_the_level_of_a_requests_line(status: int, route: str, level: str):
    logger = logging.getLogger("gateway.request")
    found = {}
    for name in ("debug", "info", "warning", "error"):
        logger.setLevel(name.upper())
        found[name] = [line["level"] for line in lines_of(context(status=status, route=route))]
    order = ("debug", "info", "warning", "error")
    for name, lines in found.items():
        assert lines == ([level] if order.index(name) <= order.index(level) else [])


def test_both_forms_tell_the_same_of_a_request(
    root: logging.Logger, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    told = context(rpc="Status", outcome="ok")
    (as_json,) = lines_of(told)
    RequestLog().tell(told, 0.25)
    text = TextFormatter().format(caplog.records[-1])
    for name in as_json.keys() - {"time", "level", "logger", "message"}:
        assert f"{name}={as_json[name]}" in text


# When lines are written.


class Watched(io.StringIO):
    """A stream that counts how often it is written to."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


async def written(stream: io.StringIO, count: int) -> None:
    """Wait until so many lines are there."""
    async with asyncio.timeout(HANG):
        while stream.getvalue().count("\n") < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_lines_are_written_together_and_soon():
    stream = Watched()
    lines = Lines(stream)
    for number in range(100):
        lines.write(str(number))
    assert stream.writes == 0
    await written(stream, 100)
    assert stream.writes == 1
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(100))
    lines.write("and again")
    await written(stream, 101)


async def test_a_warning_is_written_at_once_with_what_came_before():
    stream = Watched()
    handler = LinesHandler(Lines(stream))
    handler.setFormatter(JsonFormatter())
    handler.handle(record("first"))
    assert stream.getvalue() == ""
    handler.handle(record("second", logging.WARNING))
    told = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert told == ["first", "second"]


async def test_a_failed_request_is_written_at_once():
    stream = Watched()
    log = RequestLog(Lines(stream))
    log.tell(context(), 0.1)
    assert stream.getvalue() == ""
    log.tell(context(status=503), 0.1)
    assert stream.getvalue().count("\n") == 2


async def test_a_full_buffer_is_written_at_once():
    stream = Watched()
    lines = Lines(stream)
    for _ in range(100):
        lines.write("x" * 1000)
    assert stream.getvalue().count("\n") > 50
    await written(stream, 100)


def test_without_an_event_loop_lines_are_written_at_once():
    stream = Watched()
    lines = Lines(stream)
    lines.write("one")
    assert stream.getvalue() == "one\n"

    async def short() -> None:
        lines.write("two")  # its loop ends before the time has come

    asyncio.run(short())
    lines.flush()
    assert stream.getvalue() == "one\ntwo\n"


def test_lines_from_threads_are_all_there():
    stream = Watched()
    lines = Lines(stream)

    def talk(name: int) -> None:
        for number in range(200):
            lines.write(f"{name} {number}")

    async def talk_together() -> None:
        threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for number in range(200):
            lines.write(f"loop {number}")
            await asyncio.sleep(0)
        for thread in threads:
            await asyncio.to_thread(thread.join)

    asyncio.run(talk_together())
    lines.flush()
    told = stream.getvalue().splitlines()
    assert sorted(told) == sorted(
        f"{name} {number}" for name in (0, 1, 2, 3, "loop") for number in range(200)
    )


AT_THE_END = """
import asyncio, logging
from gateway.logs import configure_logging
configure_logging("info", "json")

async def main():
    for number in range(10):
        logging.getLogger("gateway.test").info("line %d", number)

asyncio.run(main())
"""


def test_the_end_of_the_process_writes_the_rest():
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True)
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == [
        f"line {number}" for number in range(10)
    ]


class Broken(io.StringIO):
    """Nobody reads any more, or the disk is full."""

    def write(self, text: str) -> int:
        raise BrokenPipeError("nobody reads")


def test_a_log_that_nobody_reads_any_more_fails_no_request():
    RequestLog(Lines(Broken())).tell(context(status=503), 0.1)


# Setting it up.


def test_auto_is_json_where_nobody_looks(root: logging.Logger, monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("info").tell(context(), 0.1)
    logging.getLogger("gateway.test").warning("hello")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "request",
        "hello",
    ]


@pytest.mark.parametrize(("form", "terminal"), [("auto", True), ("text", False), ("text", True)])
def test_text_for_people(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch, form: str, terminal: bool
):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("info", form).tell(context(), 0.1)
    assert "INFO    gateway.request: request request_id=id-1 client=192.0.2.7" in stream.getvalue()


def test_json_where_it_is_asked_for(root: logging.Logger, monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("info", "json").tell(context(), 0.1)
    assert json.loads(stream.getvalue())["status"] == 200


def test_others_are_quiet_at_debug(root: logging.Logger, monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("debug", "json")
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(name).debug("details")
        logging.getLogger(name).info("chatter")
    logging.getLogger("gateway.test").debug("ours")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["ours"]
