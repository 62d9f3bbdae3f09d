"""The Go program that these tests hold against ours, built once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import go_peer


@pytest.fixture(scope="session")
def peer() -> Path:
    """The program; where Go can't be had, the tests that need it are skipped."""
    try:
        return go_peer.build()
    except go_peer.GoUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def go() -> Path:
    """The `go` command, likewise."""
    try:
        return go_peer.find_go()
    except go_peer.GoUnavailable as error:
        pytest.skip(str(error))
