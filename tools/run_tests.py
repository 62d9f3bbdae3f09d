"""python -m tools.run_tests [OPTIONS]: every test, in two runs of pytest side by side.

What mostly waits, for browsers, commands and peers, goes beside the rest; its output follows when
both are done. The options are for the rest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

APART = ("tests/browser", "tests/clients", "tests/commands", "tests/interop")


def main() -> int:
    """Run them; 0 where all passed."""
    pytest = (sys.executable, "-m", "pytest")
    ignored = (f"--ignore={folder}" for folder in APART)
    with tempfile.TemporaryFile() as output:
        apart = subprocess.Popen((*pytest, *APART), stdout=output, stderr=subprocess.STDOUT)
        try:
            print(f"Beside these tests run those in {', '.join(APART)}", flush=True)
            status = subprocess.call((*pytest, *ignored, *sys.argv[1:]))
            print(f"Waiting for those in {', '.join(APART)}", flush=True)
            status_apart = apart.wait()
        finally:
            apart.terminate()
            apart.wait()
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
    return int(bool(status or status_apart))


if __name__ == "__main__":
    sys.exit(main())
