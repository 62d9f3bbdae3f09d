"""The watch over event loops fails the tests whose loops it should fail, and no others."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.loop_watch.watch import ROOT, whose

PROGRAM = f"""
import asyncio, subprocess, sys, time

def slow(path, how="await work()"):
    program = (
        "import time",
        "def compute():",
        "    until = time.thread_time() + 0.1",
        "    while time.thread_time() < until: pass",
        "async def work(): compute()",
    )
    names = {{"asyncio": asyncio}}
    exec(compile("\\n".join(program), "{ROOT}/" + path, "exec"), names)
    main = f"async def main(): await asyncio.sleep(0); {{how}}"  # its first step is a start
    exec(compile(main, "{ROOT}/tests/caller.py", "exec"), names)
    asyncio.run(names["main"]())

def run(main):
    asyncio.run(main())
"""

TESTS = (
    PROGRAM
    + """
def test_pending():
    async def main():
        asyncio.get_running_loop().create_task(asyncio.sleep(60), name="forgotten")
    run(main)

def test_not_retrieved():
    async def main():
        asyncio.get_running_loop().create_future().set_exception(ValueError("unread"))
    run(main)

def test_callback():
    async def main():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
    run(main)

def test_slow():
    slow("gateway/slow.py")

def test_slow_command():
    program = open(__file__).read().partition("def test_")[0] + "slow('gateway/slow.py')"
    subprocess.run([sys.executable, "-c", program], check=True)

def test_slow_for_the_test():
    slow("zapcore/slow.py", "compute()")

def test_slow_elsewhere():
    slow("other/slow.py")

def test_slow_by_the_clock_alone():
    async def main():
        time.sleep(0.2)
    run(main)

def test_fine():
    async def main():
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    run(main)
"""
)


def findings(folder: Path, *options: str) -> dict[str, str]:
    """What the tests above are told to leave behind, by name."""
    (folder / "pytest.ini").write_text("[pytest]")
    (folder / "test_loops.py").write_text(TESTS)
    plugins = ("-p", "tests.loop_watch.plugin", "-p", "no:asyncio", "-p", "no:cacheprovider")
    told = subprocess.run(
        (sys.executable, "-m", "pytest", *plugins, "-c", folder / "pytest.ini", *options, folder),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    ).stdout
    assert f"{len(re.findall('^def test_', TESTS, re.MULTILINE))} passed" in told, told
    found = re.split(r"^_+ ERROR at teardown of test_(\w+) _+$", told, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


LEFT = {"pending", "not_retrieved", "callback"}


def test_what_is_left_behind_fails_a_test(tmp_path) -> None:
    found = findings(tmp_path)
    assert found.keys() == LEFT
    assert "forgotten" in found["pending"]
    assert "unread" in found["not_retrieved"]
    assert "ZeroDivisionError" in found["callback"]


def test_what_computes_for_long_fails_it_with_debug_loop(tmp_path) -> None:
    found = findings(tmp_path, "--debug-loop")
    assert found.keys() == LEFT | {"slow", "slow_command"}
    for name in ("slow", "slow_command"):
        assert re.search(r"1\d\d ms of processor time .* gateway/slow.py:compute \(", found[name])


# Whose doing a callback is.


def frame_of(*places: str) -> str | None:
    """What `whose` says of functions that call each other, the outermost first."""
    names: dict[str, Any] = {"whose": whose, "getframe": sys._getframe}
    calls = "whose(getframe())"
    for place in reversed(places):
        path, _, name = place.partition(":")
        text = f"def {name}():\n return {calls}"
        if name.startswith("a_"):
            text = f"async {text}"
        exec(compile(text, str(ROOT / path), "exec"), names)  # noqa: S102
        calls = f"await {name}()" if name.startswith("a_") else f"{name}()"
    outermost = names[places[0].rpartition(":")[2]]

    def timed() -> str | None:
        """Under this name the watch runs callbacks."""
        found = outermost()
        if not inspect.iscoroutine(found):
            return found
        with pytest.raises(StopIteration) as stopped:
            found.send(None)
        return stopped.value.value

    return timed()


@pytest.mark.parametrize(
    ("places", "place"),
    [
        (["gateway/a.py:f", "zapcore/b.py:g", "other/c.py:h"], "zapcore/b.py:g"),
        (["tests/a.py:f", "zapcore/b.py:g"], None),
        (["tests/a.py:a_f", "zapcore/b.py:g"], None),
        (["tests/a.py:a_f", "zapcore/b.py:a_g", "zapcore/c.py:h"], "zapcore/c.py:h"),
        (["zapcore/b.py:a_g", "tests/a.py:a_f", "zapcore/c.py:h"], None),
        (["zapcore/b.py:a_g", "tests/a.py:a_f"], None),
        (["other/a.py:f"], None),
    ],
)
def test_whose_doing_it_is(places: list[str], place: str | None) -> None:
    assert frame_of(*places) == place
