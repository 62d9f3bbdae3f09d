"""What all tests share: how hard hypothesis looks, and that CI leaves nothing out."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Cryptography makes single examples slow and uneven, which says nothing about the code under test.
settings.register_profile(
    "zap",
    deadline=None,
    max_examples=30,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("zap")

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
