"""Identities for the tests of the channel; making one takes long enough to do it once."""

import pytest

from zapcore import Identity


@pytest.fixture(scope="session")
def alice() -> Identity:
    """The initiator, wherever there is one."""
    return Identity.generate()


@pytest.fixture(scope="session")
def bob() -> Identity:
    """The responder, wherever there is one."""
    return Identity.generate()


@pytest.fixture(scope="session")
def mallory() -> Identity:
    """Somebody whom nobody expects."""
    return Identity.generate()
