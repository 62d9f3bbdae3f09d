"""Tallies: what they tell is what each step, told at once, would have told."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from gateway.tallies import CountTally, DurationTally, ManyHistogram

BUCKETS = (0.001, 0.01, 0.1, 1, 10)
ON_AN_EDGE = st.sampled_from([0.0, *BUCKETS, *(math.nextafter(each, 99) for each in BUCKETS)])
SECONDS = ON_AN_EDGE | st.floats(0, 100)


def counter(registry: CollectorRegistry) -> Counter:
    return Counter("steps", "Steps.", ["way"], registry=registry)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """All that a registry tells, by name and bucket, but for when it was made."""
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.integers(0, 2**40)), st.integers(0, 20))
def test_steps_are_told_as_if_each_was_told_at_once(steps: list[int], pause: int):
    one, other = CollectorRegistry(), CollectorRegistry()
    tally = CountTally(counter(one).labels("up"))
    plain = counter(other).labels("up")
    for number, step in enumerate(steps):
        tally.add(step)
        plain.inc(step)
        if number == pause:
            tally.tell()
            assert samples(one) == samples(other)
    tally.tell()
    tally.tell()
    assert samples(one) == samples(other)


def test_a_step_is_one_unless_said():
    registry = CollectorRegistry()
    tally = CountTally(counter(registry).labels("up"))
    tally.add()
    tally.add()
    assert samples(registry)["steps_total", ""] == 0, "until it is told"
    tally.tell()
    assert samples(registry)["steps_total", ""] == 2


@given(st.lists(SECONDS), st.integers(0, 20))
def test_durations_are_told_as_if_each_was_told_at_once(durations: list[float], pause: int):
    one, other = CollectorRegistry(), CollectorRegistry()
    many = ManyHistogram("took", "Seconds.", ["way"], registry=one, buckets=BUCKETS)
    plain = Histogram("took", "Seconds.", ["way"], registry=other, buckets=BUCKETS)
    tally = DurationTally(many.labels("up"), BUCKETS)
    child = plain.labels("up")
    for number, seconds in enumerate(durations):
        tally.add(seconds)
        child.observe(seconds)
        if number == pause:
            tally.tell()
            assert samples(one) == pytest.approx(samples(other))
    tally.tell()
    tally.tell()
    assert samples(one) == pytest.approx(samples(other))
    assert b'took_bucket{le="+Inf",way="up"}' in generate_latest(one)


def test_what_is_observed_one_by_one_and_many_at_once_adds_up():
    registry = CollectorRegistry()
    histogram = ManyHistogram("took", "Seconds.", registry=registry, buckets=BUCKETS)
    histogram.observe(0.05)
    histogram.observe_many([1, 0, 2, 0, 0, 3], 100.25)
    told = samples(registry)
    assert told["took_count", ""] == 7
    assert told["took_sum", ""] == pytest.approx(100.3)
    assert told["took_bucket", "0.001"] == 1
    assert told["took_bucket", "0.1"] == 4
    assert told["took_bucket", "+Inf"] == 7


def test_counts_must_fit_the_buckets():
    histogram = ManyHistogram("took", "Seconds.", registry=CollectorRegistry(), buckets=BUCKETS)
    with pytest.raises(ValueError, match="shorter"):
        histogram.observe_many([1, 2], 3)


def test_nothing_to_tell_is_nothing_told():
    """A label of which nothing was observed would otherwise look as if it was."""
    registry = CollectorRegistry()
    histogram = ManyHistogram("took", "Seconds.", ["way"], registry=registry, buckets=BUCKETS)
    tally = DurationTally(histogram.labels("up"), BUCKETS)
    before = samples(registry)
    tally.tell()
    assert samples(registry) == before
