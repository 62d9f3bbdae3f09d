"""What `make bench` prints is what was measured; both sides of a row do the same work."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import benchmarks.__main__ as bench
from benchmarks import bodies, body, codec, handshake, load
from benchmarks.sides import Figure, Run, Unavailable
from benchmarks.table import ROWS, Bar, Row, added, itself
from gateway import schema
from zapcore.zwing import Session

README = Path(bench.__file__).with_name("README.md")

BARS = {
    "status-bare": (Bar.AT_LEAST, 0.60, 0.75),
    "status-model": (Bar.AT_LEAST, 1.5, 2),
    "status-go": (Bar.AT_LEAST, 0.9, 1.2),
    "calls-bare": (Bar.AT_LEAST, 2, 3),
    "calls-go": (Bar.AT_LEAST, 1, 2),
    "codec": (Bar.AT_LEAST, 3, 10),
    "latency": (Bar.AT_MOST, 2.0, 1.5),
    "handshake": (Bar.AT_MOST, 1.25, 1.1),
    "body-text": (Bar.AT_MOST, 6, 3),
    "body-json": (Bar.AT_MOST, 6, 3),
    "body-octets": (Bar.AT_MOST, 6, 3),
    "body-answer": (Bar.AT_MOST, 6, 3),
    "start": (Bar.AT_MOST, 2.5, 1.5),
    "memory-rest": (Bar.AT_MOST, 90, None),
    "memory-growth": (Bar.AT_MOST, 0.05, None),
}


def row(kind: Bar = Bar.AT_LEAST, **changes: object) -> Row:
    given = {"bar": 2.0, "beyond": 3.0, **changes}
    return Row("name", "what", "what else", "ours", "theirs", kind, **given)  # type: ignore[arg-type]


def sides(monkeypatch: pytest.MonkeyPatch, **values: list[float] | Exception) -> None:
    """Sides that give these figures, one each round, or can't be had."""

    def side_of(given: list[float] | Exception):
        figures = iter(given) if isinstance(given, list) else None

        def side(run: Run) -> Figure:
            if figures is None:
                raise given
            return Figure(next(figures), "per core s", "a command")

        return side

    monkeypatch.setattr(bench, "SIDES", {name: side_of(each) for name, each in values.items()})


def measured(rows: list[Row], rounds: int) -> bench.Measured:
    with Run(0.0) as run:
        return bench.measure(rows, run, rounds)


def test_the_bars():
    assert {each.name: (each.kind, each.bar, each.beyond) for each in ROWS if each.bar} == BARS


def test_every_row_has_its_sides_and_is_explained():
    assert len({each.name for each in ROWS}) == len(ROWS)
    assert set(bench.sides_of(ROWS)) <= set(bench.SIDES)
    text = README.read_text("utf-8")
    assert [each.name for each in ROWS if f"`{each.name}`" not in text] == []


def test_a_ratio_is_made_in_each_round_and_the_median_counts(monkeypatch: pytest.MonkeyPatch):
    sides(monkeypatch, ours=[10, 60, 90], theirs=[5, 10, 10])
    found = measured([row()], 3)
    assert found.ratios(row()) == [2, 6, 9]
    report = bench.report([row()], found)
    assert "6.00   2.00–9.00    ≥ 2    ≥ 3 beyond" in report
    assert "a command" in report


@pytest.mark.parametrize(
    ("kind", "ratio", "word"),
    [
        (Bar.AT_LEAST, 3.0, "beyond"),
        (Bar.AT_LEAST, 2.0, "holds"),
        (Bar.AT_LEAST, 1.99, "MISSED"),
        (Bar.AT_MOST, 1.0, "beyond"),
        (Bar.AT_MOST, 2.0, "holds"),
        (Bar.AT_MOST, 2.01, "MISSED"),
    ],
)
def test_whether_a_bar_holds(monkeypatch: pytest.MonkeyPatch, kind: Bar, ratio: float, word: str):
    one = row(kind, beyond=3.0 if kind is Bar.AT_LEAST else 1.0)
    sides(monkeypatch, ours=[ratio], theirs=[1])
    assert bench.report([one], measured([one], 1)).splitlines()[3].endswith(word)


def test_a_side_that_can_t_be_had_is_said_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch):
    sides(monkeypatch, ours=[10, 10], theirs=Unavailable("go is not on the PATH"), other=[5, 5])
    rows = [row(), Row("another", "what", "else", "ours", "other")]
    found = measured(rows, 2)
    assert found.ratios(rows[0]) == []
    assert found.ratios(rows[1]) == [2, 2]
    assert "not measured: go is not on the PATH" in bench.report(rows, found)
    table = json.loads(bench.as_json(rows, found))["rows"]
    assert [each["ratio"] for each in table] == [None, 2]
    assert [each["missing"] for each in table] == ["go is not on the PATH", None]


def test_comparisons():
    assert added(3.0, 2.0) == 0.5
    assert itself(73.0, math.nan) == 73.0


def test_rows_are_chosen_by_how_their_names_begin():
    assert [each.name for each in bench.wanted(["latency", "codec-one"])] == [
        "codec-one",
        "latency",
        "latency-go",
    ]
    assert bench.wanted([]) == list(ROWS)
    with pytest.raises(ValueError, match="there is no row 'nothing'"):
        bench.wanted(["nothing"])


@pytest.mark.parametrize("content", codec.CONTENTS)
def test_both_codecs_give_the_same_document(content: str):
    pytest.importorskip("google.protobuf")
    message = codec.CONTENTS[content](7)
    documents = []
    for way in codec.WAYS.values():
        encode, render = way()
        documents.append(json.loads(render(encode(message))))
    assert documents[0] == documents[1] == schema.to_document(message)


def texts(value: object) -> set[str]:
    """All texts among the values, but for empty ones."""
    if isinstance(value, dict):
        return set().union(*map(texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(texts, value))
    return {value} if isinstance(value, str) and value else set()


def test_nothing_of_a_new_status_was_there_before():
    one, other = codec.new(1), codec.new(2)
    assert texts(schema.to_document(one))
    assert not texts(schema.to_document(one)) & texts(schema.to_document(other))
    assert len(one.encode()) == len(other.encode())


@pytest.mark.parametrize("name", bodies.BODIES)
def test_bodies_are_8_mib_of_json(name: str):
    content = bodies.BODIES[name]()
    assert len(content) == pytest.approx(bodies.SIZE, rel=0.001)
    assert json.loads(content)
    assert f"body {name}" in body.SIDES


def test_a_handshake_is_whole_and_every_primitive_works():
    seeds = handshake.new_seeds()
    assert isinstance(handshake.whole(seeds)(), Session)
    for times, thing in handshake.primitives(seeds).values():
        assert times > 0
        thing()


async def test_the_load_refuses_to_count_what_is_no_answer():
    async def answer(text: bytes) -> list[float]:
        latencies: list[float] = []
        client = load.Client(b"GET / HTTP/1.1\r\n\r\n", latencies)
        client.stopping = True
        for part in (text[:5], text[5:]):
            client.data_received(part)
        await client.ended
        return latencies

    assert len(await answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")) == 1
    with pytest.raises(RuntimeError, match="503"):
        await answer(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
