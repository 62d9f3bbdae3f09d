"""The client of the event streams: what it reads out of bytes, and what it makes visible."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.terminal.client import Frame, Parser, Silence, StreamRefused, _backoff
from gateway.terminal.text import visible

STREAM = (
    b"retry: 250\nid: aaaaaaaa-1-1\n\n"
    b'event: status\nid: aaaaaaaa-1-2\ndata: {"clusterInfo":null}\n\n'
    b": keep-alive\n\n"
    b'event: node.paused\nid: aaaaaaaa-1-3\ndata: {"node":"node\xc3\xa9"}\n\n'
)
FRAMES = [
    Frame("status", {"clusterInfo": None}),
    Silence(),
    Frame("node.paused", {"node": "nodeé"}),
]


def frames_of(parser: Parser, *pieces: bytes) -> list[Frame | Silence]:
    return [told for piece in pieces for told in parser.feed(piece)]


# The stream.


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20), crlf=st.booleans())
def test_pieces_of_any_size_make_the_same_events(cuts: list[int], crlf: bool):
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[begin:end] for begin, end in itertools.pairwise(edges)]
    if crlf:
        pieces = [piece.replace(b"\n", b"\r\n") for piece in pieces]
    parser = Parser()
    assert frames_of(parser, *pieces) == FRAMES
    assert parser.last_id == "aaaaaaaa-1-3"
    assert parser.retry == 0.25


def test_the_id_is_known_before_the_first_event():
    parser = Parser()
    assert frames_of(parser, b"retry: 1000\nid: aaaaaaaa-1-1\n\n") == []
    assert parser.last_id == "aaaaaaaa-1-1"


def test_the_id_of_an_event_that_is_cut_off_is_not_the_last_one():
    parser = Parser()
    frames_of(parser, STREAM, b"event: node.added\nid: aaaaaaaa-1-4\ndata: {")
    parser.restart()
    assert parser.last_id == "aaaaaaaa-1-3"
    assert frames_of(parser, b'event: gap\ndata: {"detail":"x"}\n\n') == [
        Frame("gap", {"detail": "x"})
    ]
    assert parser.last_id == "aaaaaaaa-1-3"


def test_an_event_without_an_id_leaves_the_last_one():
    parser = Parser()
    frames_of(parser, b"id: a-1-1\ndata: {}\n\nevent: end\ndata: {}\n\n")
    assert parser.last_id == "a-1-1"


@pytest.mark.parametrize("identifier", [b"a\x00b", b"a\rX: y", b"\xff", b"x" * 300, b"\x1b[31m"])
def test_an_id_that_would_be_no_header_is_not_taken(identifier: bytes):
    parser = Parser()
    frames_of(parser, b"id: a-1-1\n\nid: " + identifier + b"\n\n")
    assert parser.last_id == "a-1-1"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1", 0.1), (b"5000", 5.0), (b"999999999", 30.0), (b"soon", 1.0), (b"9" * 4000, 1.0)],
)
def test_the_pause_that_the_server_asks_for_has_bounds(value: bytes, seconds: float):
    parser = Parser()
    frames_of(parser, b"retry: " + value + b"\n\n")
    assert parser.retry == seconds


@pytest.mark.parametrize(
    "pieces",
    [
        (b"data: " + b"x" * 2000,),
        (b"data: " + b"x" * 2000 + b"\n\n",),
        (b"x" * 600, b"x" * 600),
        (b"data: " + b"x" * 600 + b"\n",) * 2,
        (b"data: " + b"x" * 600 + b"\n", b"data: " + b"x" * 600),
    ],
)
def test_an_event_that_is_too_large(pieces: tuple[bytes, ...]):
    with pytest.raises(StreamRefused, match="over 1024 bytes"):
        frames_of(Parser(1024), *pieces)


def test_comments_and_small_events_without_end_are_not_too_large():
    parser = Parser(1024)
    for _ in range(100):
        assert len(frames_of(parser, b": keep-alive\n\ndata: {}\n\n" * 10)) == 20


@pytest.mark.parametrize(
    "data", [b"<html>", b"[]", b'"x"', b"1", b"[" * 100_000, b'{"a":NaN}', b'{"a":' + b"9" * 5000]
)
def test_what_is_no_event_of_a_gateway(data: bytes):
    with pytest.raises(StreamRefused, match="what answers there is no zap-gateway"):
        frames_of(Parser(), b"data: " + data + b"\n\n")


def test_pauses_grow_and_differ_and_have_an_end():
    for failures in range(1, 100):
        full = min(30.0, 2.0 ** (failures - 1))
        pauses = {_backoff(1.0, failures) for _ in range(20)}
        assert all(full / 2 <= pause <= full for pause in pauses)
        assert len(pauses) > 1


# Texts.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("node1", "node1"),
        ("nœud-🚀 東京", "nœud-🚀 東京"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("a\r\n\tb\x7f", "a\\r\\n\\tb\\x7f"),
        ("\u202enode\u2066", "\\u202enode\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("no\xa0break\u2028", "no\\xa0break\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("\\x1b", "\\\\x1b"),
        ("e\u0301", "e\u0301"),
        ("\u0301e", "\\u0301e"),
        ("e" + "\u0301" * 5, "e" + "\u0301" * 3 + "\\u0301" * 2),
        ("", ""),
    ],
)
def test_what_is_not_seen_is_written_out(text: str, shown: str):
    assert visible(text) == shown


def test_what_is_long_is_cut():
    assert visible("x" * 10_000, 100) == "x" * 99 + "…"
    assert visible("x" * 100, 100) == "x" * 100
    assert visible("\x1b" * 26, 100) == "\\x1b" * 24 + "…"


@given(text=st.text(), longest=st.integers(1, 50))
@example(text="x" * 9 + "\x1b", longest=10)
def test_whatever_the_text_it_is_one_line_that_can_be_printed(text: str, longest: int):
    shown = visible(text, longest)
    assert shown.isprintable()
    assert len(shown) <= longest
    assert json.loads(json.dumps(shown)) == shown
