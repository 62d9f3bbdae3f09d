"""Bodies are read as json reads them, whatever they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message

from gateway.bodies import JsonRequest

Outcome = tuple[str, ...]


def outcome_of(read: Any) -> Outcome:
    """The value with its types, or the error as FastAPI tells it."""
    try:
        return ("value", repr(read()))
    except json.JSONDecodeError as error:
        return ("not JSON", error.msg, str(error.pos))
    except (UnicodeDecodeError, RecursionError) as error:
        return (type(error).__name__,)


def read(body: bytes) -> Any:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    reading = JsonRequest({"type": "http", "headers": []}, receive).json()
    try:
        reading.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
PIECES = st.sampled_from(
    [
        *('{"a":', "}", "[", "]", ",", ":", '"', "1", "-0", "1e5", "NaN", "-Infinity", "\\ud800"),
        *("tru", "null", " ", "\n", "\x00", "\x1f", "\\", "é", "\ufeff", "1.", ".5", "01", "'"),
    ]
)


@given(VALUES.map(json.dumps) | st.lists(PIECES, max_size=8).map("".join))
@example('{"a":1,"a":2}')
@example('"\\ud800"')
@example('"\\udc00\\ud800"')
@example("[NaN,Infinity,-Infinity,1e400,-0,-0.0,0.1,123456789012345678901234567890]")
@example("1" * 400)
@example("1" * 5000)
@example("9007199254740993.0")
@example("[" * 100 + "]" * 100)
@example("[" * 300 + "]" * 300)
@example("")
def test_every_text_is_read_the_same(text: str):
    body = text.encode("utf-8", "surrogatepass")
    try:
        expected = outcome_of(lambda: json.loads(body))
    except ValueError as error:  # more digits than Python turns into a number
        with pytest.raises(type(error)):
            read(body)
    else:
        assert outcome_of(lambda: read(body)) == expected


@given(st.binary(max_size=40) | st.text().map(lambda text: json.dumps(text).encode("utf-16")))
def test_all_bytes_are_read_the_same(body: bytes):
    assert outcome_of(lambda: read(body)) == outcome_of(lambda: json.loads(body))
