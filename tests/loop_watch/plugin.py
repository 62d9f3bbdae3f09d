"""Fails the tests whose event loops leave something behind; with --debug-loop, slow ones too.

With it loops are in asyncio's debug mode, also those of commands that tests run.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.loop_watch import FINDINGS
from tests.loop_watch.watch import ROOT, SlowCallbacks, leftovers

_SITE = Path(__file__).parent / "site"


class LoopWatch:
    """The plugin.

    Args:
        debug: also tell what takes long, here and in commands.
    """

    def __init__(self, *, debug: bool) -> None:
        self._found: list[str] = []
        self._of_commands: Path | None = None
        self._read = 0
        self._watching = ExitStack()
        self._watching.enter_context(leftovers(self._found.append))
        if debug:
            self._debug()

    def _debug(self) -> None:
        folder = self._watching.enter_context(tempfile.TemporaryDirectory())
        self._of_commands = Path(folder, "findings")
        self._of_commands.touch()
        self._watching.enter_context(SlowCallbacks(self._found.append).told())
        patch = self._watching.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PYTHONASYNCIODEBUG", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (_SITE, ROOT))))
        patch.setenv(FINDINGS, str(self._of_commands))

    def take(self) -> list[str]:
        """What was found since the last time."""
        found, self._found[:] = [*self._found], []
        if self._of_commands is not None:
            told = self._of_commands.read_text()
            found += told[self._read :].splitlines()
            self._read = len(told)
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> Iterator[None]:
        """The end of a test, and so of its loop."""
        yield
        if nextitem is None:
            gc.collect()
        if found := self.take():
            pytest.fail("\n".join(("Its event loops:", *found)), pytrace=False)

    def pytest_unconfigure(self) -> None:
        self._watching.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--debug-loop",
        action="store_true",
        help="event loops in debug mode, and no callback may compute for long (make debug-run)",
    )


def pytest_configure(config: pytest.Config) -> None:
    watch = LoopWatch(debug=config.getoption("--debug-loop"))
    config.pluginmanager.register(watch, "loop watch")
