"""What the tests with faults share: their chances."""

from __future__ import annotations

import os
import random

import pytest

SEED = "ZAP_FAULTS_SEED"
"""The environment variable that replays what failed."""


@pytest.fixture
def seed() -> int:
    """What all chances of a test depend on; told where it fails."""
    given = os.environ.get(SEED)
    seed = random.SystemRandom().randrange(10**9) if given is None else int(given)
    print(f"{SEED}={seed} replays this")  # noqa: T201
    return seed
