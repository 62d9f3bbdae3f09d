"""Journal: the last events in a bounded memory, and places in what is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal import MAX_EVENTS, Item, Journal, Position, now, parse_position

EPOCH = "5f0c91d2"


def item(sequence: int, size: int = 10) -> Item:
    return Item(Position(EPOCH, 1, sequence), "node.paused", b"x" * size)


def filled(count: int, journal: Journal | None = None) -> Journal:
    journal = Journal() if journal is None else journal
    for sequence in range(1, count + 1):
        journal.append(item(sequence))
    return journal


def sequences(journal: Journal, since: int = 0) -> list[int]:
    return [kept.sequence for kept in journal.since(since)]


def test_an_empty_one():
    journal = Journal()
    assert (journal.last, journal.dropped, len(journal)) == (0, 0, 0)
    assert sequences(journal) == []


def test_a_thousand_are_kept():
    assert MAX_EVENTS == 1000
    journal = filled(1000)
    assert (len(journal), journal.last, journal.dropped) == (1000, 1000, 0)
    journal.append(item(1001))
    assert (len(journal), journal.last, journal.dropped) == (1000, 1001, 1)
    assert sequences(journal) == list(range(2, 1002))


def test_what_is_dropped_is_the_last_one_that_is_not_kept():
    """Also where numbers are missing between two: they were given to states."""
    journal = Journal(max_events=2)
    for sequence in (3, 7, 20, 31):
        journal.append(item(sequence))
    assert (journal.dropped, journal.last) == (7, 31)
    assert sequences(journal, journal.dropped) == [20, 31]


def test_bytes_are_bounded():
    journal = Journal(max_bytes=100)
    for sequence in range(1, 11):
        journal.append(item(sequence, size=10))
    assert (len(journal), journal.dropped) == (10, 0)
    journal.append(item(11, size=25))
    assert sequences(journal) == list(range(4, 12))
    assert journal.dropped == 3


def test_the_newest_is_kept_whatever_its_size():
    journal = filled(5, Journal(max_bytes=100))
    journal.append(item(6, size=1000))
    assert sequences(journal) == [6]
    journal.append(item(7, size=10))
    assert sequences(journal) == [7]
    assert journal.dropped == 6


def test_what_is_behind_a_number():
    journal = Journal()
    for sequence in (3, 7, 20):
        journal.append(item(sequence))
    found = {since: sequences(journal, since) for since in (0, 2, 3, 6, 7, 19, 20, 21, 999)}
    assert found == {
        0: [3, 7, 20],
        2: [3, 7, 20],
        3: [7, 20],
        6: [7, 20],
        7: [20],
        19: [20],
        20: [],
        21: [],
        999: [],
    }


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40)), max_size=40),
    st.integers(1, 10),
    st.integers(1, 120),
    st.integers(0, 200),
)
def test_what_is_kept_is_the_end_of_what_came(
    steps: list[tuple[int, int]], max_events: int, max_bytes: int, since: int
):
    journal, came, at = Journal(max_events, max_bytes), [], 0
    for step, size in steps:
        at += step
        came.append(item(at, size))
        journal.append(came[-1])
    kept = list(journal.since(0))
    assert kept == came[len(came) - len(kept) :]
    assert len(kept) == len(journal) <= max_events
    assert sum(len(each.data) for each in kept) <= max_bytes or len(kept) == 1
    assert bool(kept) == bool(came)
    gone = came[: len(came) - len(kept)]
    assert journal.dropped == (gone[-1].sequence if gone else 0)
    assert journal.last == (came[-1].sequence if came else 0)
    assert sequences(journal, since) == [each.sequence for each in kept if each.sequence > since]
    if gone:  # none was dropped without need
        more = [gone[-1], *kept]
        assert len(more) > max_events or sum(len(each.data) for each in more) > max_bytes


# Items.


def test_the_forms_of_an_item():
    it = Item(Position(EPOCH, 4242, 17), "node.paused", b'{"id":1}')
    assert it.sse == b'event: node.paused\nid: 5f0c91d2-4242-17\ndata: {"id":1}\n\n'
    assert it.line == b'{"id":1}\n'
    assert json.loads(it.wrapped_line) == {"node.paused": {"id": 1}}


def test_forms_are_made_once():
    it = item(1)
    assert it.sse is it.sse
    assert it.line is it.line
    assert it.wrapped_line is it.wrapped_line


# Ids.


@given(
    st.binary(min_size=4, max_size=4),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 10**15 - 1),
)
def test_an_id_is_read_as_it_was_written(epoch: bytes, pid: int, sequence: int):
    position = Position(epoch.hex(), pid, sequence)
    assert parse_position(str(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17",
        "5f0c91d2",
        "5f0c91d2-17",
        "5f0c91d2-1-",
        "5f0c91d2--17",
        "5F0C91D2-1-17",
        "5f0c91d-1-17",
        "5f0c91d22-1-17",
        "5f0c91dg-1-17",
        "5f0c91d2-1--17",
        "5f0c91d2-1-1 7",
        "5f0c91d2-1-17\n",
        " 5f0c91d2-1-17",
        "5f0c91d2-1-17-3",
        "5f0c91d2-1-1.5",
        "5f0c91d2-1-١٧",
        "5f0c91d2-1-" + "9" * 16,
        "5f0c91d2-" + "9" * 11 + "-17",
        "5f0c91d2-1-17, 5f0c91d2-1-17",
        "0" * 60_000,
    ],
)
def test_what_is_no_id(text: str):
    assert parse_position(text) is None


@given(st.text(max_size=40))
def test_no_text_makes_trouble(text: str):
    position = parse_position(text)
    assert position is None or text.startswith(position.epoch)


def test_the_time_is_in_utc_to_the_millisecond():
    moment = now()
    assert moment.endswith("Z")
    assert len(moment) == len("2026-11-22T21:10:36.123Z")
