"""Watches the loops of commands that tests run; Python imports this at its start."""

import atexit
import logging
import os
import sys
from contextlib import ExitStack
from importlib.abc import MetaPathFinder

from tests.loop_watch import FINDINGS
from tests.loop_watch.watch import SlowCallbacks, leftovers


def _is_no_debugging(record: logging.LogRecord) -> bool:
    """Whether asyncio says it in production too: tests take what it says for complaints."""
    failed_handshake = record.getMessage().startswith("Error on transport creation")
    return record.levelno > logging.WARNING and not failed_handshake


logging.getLogger("asyncio").addFilter(_is_no_debugging)


class _NoUvloop(MetaPathFinder):
    """It can't be watched, and the gateway does without."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """As if it were not installed."""
        if name == "uvloop":
            raise ModuleNotFoundError("watched loops are asyncio's", name=name)


sys.meta_path.insert(0, _NoUvloop())


def _tell(finding: str) -> None:
    line = f"process {os.getpid()} ({' '.join(sys.argv[:2])}): {finding}".replace("\n", " ")
    with open(os.environ[FINDINGS], "a") as findings:
        findings.write(f"{line}\n")


_watching = ExitStack()
_watching.enter_context(leftovers(_tell))
_watching.enter_context(SlowCallbacks(_tell, command=True).told())
atexit.register(_watching.close)
