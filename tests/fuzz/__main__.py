"""python -m tests.fuzz: coverage-guided fuzzing of every decoder."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.fuzz import runner

_EPILOG = """\
Every decoder is a target: a function that takes any bytes, feeds them to the decoder, and raises
where a promise is broken. Beside "nothing but the documented errors" it is held that what was
decoded encodes to what decodes to the same, that a stream can be cut anywhere, that a second and
plain reading (tests/fuzz/reference.py) agrees, and that memory and steps are bounded by the size of
the input. atheris watches which places of the code an input reaches, and goes on with those that
reach new ones.

  python -m tests.fuzz                              10 million inputs over all targets
  python -m tests.fuzz --list                       the targets
  python -m tests.fuzz --target messages --executions 100000
  python -m tests.fuzz --target messages --replay build/fuzz/messages/crash-0123abcd
  python -m tests.fuzz --executions 1000000 --keep  and keep what reached new places

Inputs stay in the folder: the next run goes on with them, and the last column of its table counts
all runs. Exit status 1 means that a defect was found. Its input is in a file that is named; put it
into the corpus (base64, a line of tests/fuzz/corpus/TARGET.txt), and every run of the tests will
try it.
"""

_FOLDER = Path("build/fuzz")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz",
        description="Coverage-guided fuzzing of every decoder.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="tell the targets, and do nothing")
    parser.add_argument(
        "--target", action="append", metavar="NAME", help="only this one; may be given again"
    )
    parser.add_argument(
        "--executions", type=int, default=10_000_000, metavar="N", help="inputs in all (10,000,000)"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="targets at a time (2)")
    parser.add_argument(
        "--folder", type=Path, default=_FOLDER, help=f"for inputs, logs and findings ({_FOLDER})"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the mutations (0: another each time)"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input of one target")
    parser.add_argument(
        "--keep", action="store_true", help="add to tests/fuzz/corpus what reaches new places"
    )
    arguments = parser.parse_args()
    if arguments.replay and len(arguments.target or ()) != 1:
        parser.error("--replay needs the --target that the file is an input of")
    return arguments


def main() -> int:
    """Fuzz; 1 where a defect was found."""
    arguments = _arguments()
    try:
        targets = runner.load(instrumented=not (arguments.list or arguments.replay))
    except ModuleNotFoundError as error:
        if error.name != "atheris":
            raise
        _say("atheris is missing: pip install --group dev (it is for Linux on x86-64)")
        return 2
    unknown = set(arguments.target or ()) - set(targets)
    if unknown:
        _say(f"there is no target {min(unknown)!r}: see --list")
        return 2
    chosen = [targets[name] for name in arguments.target or targets]
    if arguments.list:
        for target in chosen:
            _say(f"{target.name:28} {(target.run.__doc__ or '').splitlines()[0]}")
        return 0
    if arguments.replay:
        chosen[0].run(data := arguments.replay.read_bytes())
        chosen[0].check_bounds(data)
        return 0
    return _fuzz(chosen, arguments)


def _fuzz(targets: list[runner.Target], arguments: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and end the runs
    folder = arguments.folder.absolute()
    outcomes: list[runner.Outcome] = []
    total: dict[str, int] = {}
    runs = runner.run_all(targets, arguments.executions, folder, arguments.jobs, arguments.seed)
    for outcome in runs:
        if isinstance(outcome, str):
            _say(outcome)
            continue
        outcomes.append(outcome)
        total = runner.add_up(folder, outcome)
        _say(f"{outcome.target}: {outcome.executions:,} in {outcome.seconds:.0f} s")
        if outcome.failed:
            _say(outcome.report)
            again = f"python -m tests.fuzz --target {outcome.target} --replay {outcome.finding}"
            _say(f"A DEFECT in {outcome.target}: {again}")
    _say(runner.table(outcomes, total))
    if arguments.keep:
        from tests.fuzz import minimising

        for target in targets:
            _say(minimising.keep_best(target, folder / target.name / "inputs"))
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
