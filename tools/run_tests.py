"""python -m tools.run_tests [OPTIONS]: every test, in three runs of pytest side by side.

Most tests wait most of the time: for browsers, commands, peers and time-outs. What the other runs
print follows when all are done. The options are for the first run, which has the tests of the two
packages themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import IO

APART = (
    ("tests/browser", "tests/deploy"),
    ("tests/clients", "tests/commands", "tests/interop", "tests/schema"),
)
_PYTEST = (sys.executable, "-m", "pytest")
_NICENESS = 5
"""Of the other runs: the first one takes longest, and looks at the clock most."""


class _Run:
    """A run whose output waits."""

    def __init__(self, folders: tuple[str, ...], output: IO[bytes]) -> None:
        self._output = output
        self._process = subprocess.Popen(
            (*_PYTEST, *folders), stdout=output, stderr=subprocess.STDOUT
        )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)

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
    folders = [folder for run in APART for folder in run]
    with ExitStack() as stack:
        runs = [
            stack.enter_context(_Run(run, stack.enter_context(tempfile.TemporaryFile())))
            for run in APART
        ]
        print(f"Beside these tests run those in {', '.join(folders)}", flush=True)
        ignored = (f"--ignore={folder}" for folder in folders)
        statuses = [subprocess.call((*_PYTEST, *ignored, *sys.argv[1:]))]
        print(f"Waiting for those in {', '.join(folders)}", flush=True)
        statuses += [run.finish() for run in runs]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
