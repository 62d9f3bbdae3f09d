"""What all tests share: how hard hypothesis looks, what CI demands, that no secret is told."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.secret_search import session as secrets

secrets.watch()  # before a test's module takes what is watched by name

pytest_plugins = ("tests.loop_watch.plugin",)

# Cryptography makes single examples slow and uneven, which says nothing about the code under test.
settings.register_profile(
    "zap",
    deadline=None,
    max_examples=30,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("zap")


def pytest_addoption(parser):
    parser.addoption(
        "--long", action="store_true", help="the long versions of tests that have one (make soak)"
    )


@pytest.fixture
def long(request) -> bool:
    """Whether the long version of a test is wanted."""
    return request.config.getoption("--long")


def pytest_collection_modifyitems(config, items):
    """Leave out what has a long version only, unless it is wanted."""
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long_only")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


_DEMAND_ALL = bool(os.environ.get("ZAP_GATEWAY_TESTS_DEMAND_ALL"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where everything is demanded, a skip is a failure that says what was missing."""
    report = yield
    if _DEMAND_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped here: {reason}"
    return report


# No output of any test may show a secret: see secret_search.


def pytest_runtest_logstart(nodeid):
    secrets.begins(nodeid)


def pytest_collectreport(report):
    secrets.reported(report)


def pytest_runtest_logreport(report):
    secrets.reported(report)


def pytest_sessionfinish(session):
    """The search itself; what it finds is an error like a test's."""
    report = secrets.verdict()
    if report is not None:
        session.config.hook.pytest_runtest_logreport(report=report)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure():
    secrets.search.close()
