"""Tallies: what is counted for each request, kept apart and told to prometheus_client together.

Each of its numbers takes a lock for each step. Requests are too frequent for that; who reads the
metrics asks every few seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Counter, Histogram


class CountTally:
    """Steps of one counter."""

    __slots__ = ("_counter", "_untold")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._untold = 0

    def add(self, amount: int = 1) -> None:
        """Count so many more."""
        self._untold += amount

    def tell(self) -> None:
        """Tell the counter what it has not been told."""
        if self._untold:
            self._counter.inc(self._untold)
            self._untold = 0


class ManyHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def observe_many(self, counts: Sequence[int], total: float) -> None:
        """Take observations.

        Args:
            counts: how many fell into each bucket, the one without an upper bound included.
            total: the sum of what was observed.
        """
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class DurationTally:
    """Observations of one histogram, in seconds.

    Args:
        histogram: to be told.
        buckets: its upper bounds, ascending, without infinity.
    """

    __slots__ = ("_bounds", "_counts", "_histogram", "_total")

    def __init__(self, histogram: ManyHistogram, buckets: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = buckets
        self._forget()

    def _forget(self) -> None:
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        """Observe one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def tell(self) -> None:
        """Tell the histogram what it has not been told."""
        if any(self._counts):
            self._histogram.observe_many(self._counts, self._total)
            self._forget()
