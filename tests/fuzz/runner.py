"""Runs targets under atheris: a process each, so that one's end is not that of the others.

Imported before anything that is to be instrumented.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.oracles import Target

_INSTRUMENTED = [
    *("zapcore", "gateway", "ipaddress"),
    *("tests.fuzz.reference", "tests.fuzz.web", "tests.fuzz.wire", "tests.fuzz.zwing"),
]
"""The targets too: what they tell apart guides where the decoder is a regular expression."""

_LONGEST_RUN = 20
"""Seconds that one input may take before it counts as a finding."""
_LARGEST_PROCESS = 2048
"""MiB."""
_PAUSE = 0.05
_PROGRESS_EVERY = 10.0

_COUNT = re.compile(rb"^#(\d+)\s", re.MULTILINE)
_FINAL = re.compile(rb"stat::number_of_executed_units:\s+(\d+)")
_COVERED = re.compile(rb"cov: (\d+)")
_BEGIN, _WRITTEN = "=== A defect ===", "Test unit written to"
_ARTIFACT = re.compile(_WRITTEN.encode() + rb" (\S+)")
"""In libFuzzer's own words, which it has for time and memory."""


def load(*, instrumented: bool) -> dict[str, Target]:
    """Every target, by name.

    Args:
        instrumented: whether the decoders tell atheris where they go.

    Raises:
        ModuleNotFoundError: there is no atheris.
    """
    if not instrumented:
        from tests.fuzz.targets import TARGETS

        return TARGETS
    import atheris

    with (
        redirect_stderr(io.StringIO()),  # a line per module
        atheris.instrument_imports(_INSTRUMENTED, enable_loader_override=False),
    ):
        from tests.fuzz.targets import TARGETS
    from gateway import schema
    from tests.fuzz.wire import MESSAGE_CLASSES

    for cls in MESSAGE_CLASSES:  # these are compiled at run time, and imported from nowhere
        for compiled in (
            cls._decode,
            cls._encode,
            cls._keep,
            cls._recall,
            schema._DOCUMENTS.decoder_of(cls),
        ):
            atheris.instrument_func(compiled)
    return TARGETS


@dataclass
class Outcome:
    """What became of a target's run.

    Args:
        target: its name.
        executions: how many inputs ran.
        seconds: by the clock.
        covered: places that atheris saw reached.
        finding: the file of the input that shows a defect, or None.
        report: what was printed of that.
    """

    target: str
    executions: int
    seconds: float
    covered: int
    finding: Path | None = None
    report: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.report)


class Run:
    """A target's process.

    Args:
        target: what runs.
        executions: how many inputs, the corpus among them.
        folder: where its inputs, findings and log are. Inputs stay there: the next run goes on.
        seed: of the mutations; 0 for any.
    """

    def __init__(self, target: Target, executions: int, folder: Path, seed: int) -> None:
        self.target = target
        self.executions = executions
        self.began = time.monotonic()
        self._log = folder / target.name / "log"
        inputs = _prepare(target, folder)
        arguments = [
            *(sys.argv[0], str(inputs), f"-runs={executions}", f"-max_len={target.longest}"),
            *(f"-timeout={_LONGEST_RUN}", f"-rss_limit_mb={_LARGEST_PROCESS}", f"-seed={seed}"),
            *("-print_final_stats=1", f"-artifact_prefix={folder / target.name}/"),
        ]
        self.process = os.fork()
        if not self.process:
            _become(arguments, _reporting(target.check, folder / target.name), self._log)

    @property
    def so_far(self) -> int:
        """Executions, as far as they are told."""
        counts = _COUNT.findall(self._log.read_bytes() if self._log.exists() else b"")
        return int(counts[-1]) if counts else 0

    def finished(self) -> Outcome | None:
        """What became of it; None while it runs."""
        process, status = os.waitpid(self.process, os.WNOHANG)
        return self._outcome(os.waitstatus_to_exitcode(status)) if process else None

    def stop(self) -> None:
        """End it."""
        os.kill(self.process, 9)
        os.waitpid(self.process, 0)

    def _outcome(self, status: int) -> Outcome:
        log = self._log.read_bytes()
        final, covered = _FINAL.search(log), _COVERED.findall(log)
        found = _ARTIFACT.search(log)
        return Outcome(
            self.target.name,
            int(final[1]) if final else self.so_far,
            time.monotonic() - self.began,
            int(covered[-1]) if covered else 0,
            Path(found[1].decode()) if found else None,
            "" if status == 0 else _report(log, status),
        )


def _reporting(check: Callable[[bytes], None], folder: Path) -> Callable[[bytes], None]:
    """The same check, which writes down the input that shows a defect, and ends the process."""

    def reporting(data: bytes) -> None:
        try:
            check(data)
        except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
            path = folder / f"crash-{sha1(data, usedforsecurity=False).hexdigest()[:16]}"
            path.write_bytes(data)
            sys.stdout.write(f"{_BEGIN}\n{traceback.format_exc()}\n{_WRITTEN} {path}\n")
            sys.stdout.flush()
            os._exit(1)

    return reporting


def _report(log: bytes, status: int) -> str:
    """The end of a log, from the defect on."""
    lines = log.decode("utf-8", "replace").splitlines()
    begin = lines.index(_BEGIN) if _BEGIN in lines else -40
    return "\n".join([f"exit status {status}", *lines[begin:][:80]])


def _prepare(target: Target, folder: Path) -> Path:
    """A folder with the inputs to begin with, beside those of earlier runs."""
    from tests.fuzz.corpus import kept, seeds

    inputs = folder / target.name / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for data in (*seeds(target.name), *kept(target.name)):
        (inputs / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    return inputs


def _become(arguments: list[str], check: Callable[[bytes], None], log: Path) -> None:
    """Turn this process into a target's. It does not return."""
    import atheris

    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        scratch = log.parent / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        tempfile.tempdir = str(scratch)
        atheris.Setup(arguments, check)
        atheris.Fuzz()
    finally:
        os._exit(1)


def shares(targets: list[Target], executions: int) -> dict[str, int]:
    """How many executions each target gets."""
    whole = sum(target.share for target in targets)
    return {target.name: max(1, round(executions * target.share / whole)) for target in targets}


def run_all(
    targets: list[Target], executions: int, folder: Path, jobs: int, seed: int
) -> Iterator[Outcome | str]:
    """Run targets, some at a time: what becomes of each as it ends, and how far they are."""
    waiting = [(target, shares(targets, executions)[target.name]) for target in targets]
    running: list[Run] = []
    told = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                target, count = waiting.pop(0)
                running.append(Run(target, count, folder, seed))
            for run in list(running):
                outcome = run.finished()
                if outcome is not None:
                    running.remove(run)
                    yield outcome
            if time.monotonic() - told > _PROGRESS_EVERY:
                told = time.monotonic()
                yield "   ".join(map(_progress, running))
            time.sleep(_PAUSE)
    finally:
        for run in running:
            run.stop()


def _progress(run: Run) -> str:
    done = run.so_far
    return f"{run.target.name} {done:,} of {run.executions:,}"


# What all runs together did.


def add_up(folder: Path, outcome: Outcome) -> dict[str, int]:
    """Count the executions of a run beside those before; all by target."""
    path = folder / "executions.json"
    total: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    total[outcome.target] = total.get(outcome.target, 0) + outcome.executions
    path.write_text(json.dumps(total, indent=2) + "\n")
    return total


def table(outcomes: list[Outcome], total: dict[str, int]) -> str:
    """What the runs did, a line each."""
    head = f"{'target':28} {'executions':>12} {'per second':>11} {'places':>7} {'ever':>13}  found"
    rows = [
        f"{each.target:28} {each.executions:12,} {each.executions / each.seconds:11,.0f}"
        f" {each.covered:7,} {total[each.target]:13,}  {'A DEFECT' if each.failed else '-'}"
        for each in sorted(outcomes, key=lambda outcome: outcome.target)
    ]
    executions = sum(each.executions for each in outcomes)
    last = f"{'together':28} {executions:12,} {'':11} {'':7} {sum(total.values()):13,}"
    return "\n".join([head, *rows, last])
