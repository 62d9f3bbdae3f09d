"""python -m tools.run_tests [OPTIONS]: every test, in four runs of pytest side by side.

Most tests wait most of the time: for browsers, commands, peers and time-outs. The first run has
what the others have not, and gets the options; what the others print follows when all are done.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import IO

APART = (
    ("tests/integration/test_gateway_*.py",),
    ("tests/browser", "tests/faults", "tests/hostile"),
    ("tests/commands", "tests/fuzz", "tests/interop"),
)
_PYTEST = (sys.executable, "-m", "pytest")
_NICENESS = 5
"""Of all but the first two: those look at the clock most."""


class _Run:
    """A run whose output waits."""

    def __init__(self, patterns: tuple[str, ...], output: IO[bytes], niceness: int) -> None:
        paths = [path for pattern in patterns for path in sorted(glob.glob(pattern))]
        self._output = output
        self._process = subprocess.Popen(
            (*_PYTEST, *paths), stdout=output, stderr=subprocess.STDOUT
        )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()

    def finish(self) -> int:
        """Wait for its end, and print what it printed; its exit status."""
        status = self._process.wait()
        self._output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(self._output.read())
        return status


def main() -> int:
    """Run them; 0 where all passed."""
    patterns = [pattern for run in APART for pattern in run]
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                _Run(run, stack.enter_context(tempfile.TemporaryFile()), _NICENESS * (place > 0))
            )
            for place, run in enumerate(APART)
        ]
        print(f"Beside these tests run those in {', '.join(patterns)}", flush=True)
        ignored = (f"--ignore-glob={pattern}" for pattern in patterns)
        statuses = [subprocess.call((*_PYTEST, *ignored, *sys.argv[1:]))]
        print(f"Waiting for those in {', '.join(patterns)}", flush=True)
        statuses += [run.finish() for run in runs]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
