"""Each restart of the server is told once, whichever way it shows first."""

from __future__ import annotations

from gateway.changes import restarted
from gateway.streams import _ServerPid


def test_a_restart_that_ping_shows_is_not_told_again_by_the_states():
    process = _ServerPid()
    assert process.pinged(1) is None
    assert process.told(1) is None
    assert process.pinged(2) == restarted(1, 2)
    assert process.told(2) is None
    assert process.known == 2


def test_a_restart_that_the_states_show_is_not_told_again_by_ping():
    """As where a server is polled: the pool connects again without a word."""
    process = _ServerPid()
    assert process.pinged(1) is None
    assert process.told(1) is None
    assert process.told(2) == restarted(1, 2)
    assert process.pinged(2) is None
    assert process.pinged(3) == restarted(2, 3)


def test_what_does_not_tell_its_process_shows_no_restart():
    process = _ServerPid()
    assert process.pinged(0) is None
    assert process.told(0) is None
    assert process.known == 0
    assert process.told(7) is None
    assert process.pinged(0) is None
    assert process.told(0) is None
    assert process.known == 7
