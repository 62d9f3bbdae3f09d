"""What event loops leave behind, and what holds them up.

Left behind: tasks that are pending when their loop ends, exceptions that nobody took, callbacks
that failed. Both this and `slow_callbacks` work on the loops of asyncio, by replacing what all of
them share; uvloop's tell their ends alone.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from asyncio import base_events, runners
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from pathlib import Path
from types import CodeType, FrameType
from weakref import WeakSet

ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{ROOT / package}/" for package in ("zapcore", "gateway"))
_OF_TESTS = tuple(f"{ROOT / package}/" for package in ("tests", "benchmarks"))
_ASYNC = CO_COROUTINE | CO_ASYNC_GENERATOR

_MAKING = "Gateway.__init__"

SLOW = 0.05
"""Seconds of processor time for which one callback may hold its loop up."""

_SAMPLE_EVERY = 0.004
_SAMPLE_AFTER = 0.01

_FAULTS = (
    "exception was never retrieved",
    "was destroyed but it is pending",
    "Exception in callback",
    "during asynchronous generator",
    "Unhandled exception",
    "Fatal error",
)
"""What a loop tells of that is a defect of somebody's; it also tells of what the system lacks."""

_OF_ASYNCIO = ("_accept_connection2",)
"""Tasks that asyncio makes: a TLS handshake that has not ended when the server does."""

Tell = Callable[[str], object]


@contextmanager
def leftovers(tell: Tell) -> Iterator[None]:
    """Tell what loops leave behind.

    Args:
        tell: gets a line for each.
    """
    cancel_all = runners._cancel_all_tasks
    handle = base_events.BaseEventLoop.default_exception_handler
    close = base_events.BaseEventLoop._asyncgen_finalizer_hook

    def end(loop: asyncio.AbstractEventLoop) -> None:
        for task in asyncio.all_tasks(loop):
            # Without code: what closes a generator that was dropped; see below.
            code = getattr(task.get_coro(), "cr_code", None)
            if code is not None and code.co_name not in _OF_ASYNCIO:
                tell(f"pending at the end of its loop: {task!r}")
        cancel_all(loop)

    def close_and_tell(loop: asyncio.BaseEventLoop, generator: AsyncGenerator[object]) -> None:
        code = generator.ag_code
        if code.co_filename.startswith(_OURS):
            tell(f"dropped without being closed: {_place(code)}")
        close(loop, generator)

    def handle_and_tell(loop: asyncio.BaseEventLoop, context: dict[str, object]) -> None:
        message = str(context.get("message"))
        if any(fault in message for fault in _FAULTS):
            source = context.get("task") or context.get("future") or context.get("asyncgen")
            tell(f"{message}: {context.get('exception')!r} {source or ''}")
        handle(loop, context)

    runners._cancel_all_tasks = end
    base_events.BaseEventLoop._asyncgen_finalizer_hook = close_and_tell
    base_events.BaseEventLoop.default_exception_handler = handle_and_tell
    try:
        yield
    finally:
        runners._cancel_all_tasks = cancel_all
        base_events.BaseEventLoop._asyncgen_finalizer_hook = close
        base_events.BaseEventLoop.default_exception_handler = handle


class _Callback:
    """A callback that runs: when it began, and where it was seen since."""

    def __init__(self) -> None:
        self.wall = time.monotonic()
        self.cpu = time.thread_time()
        self.collecting = 0.0
        """Of the processor time, in the garbage collector."""
        self.seen: Counter[str | None] = Counter()


class SlowCallbacks:
    """Tells callbacks of ours that computed for long.

    Processor time of the loop's thread counts, as a loaded machine makes anything slow by the
    clock. A thread looks where a callback is that takes long: what tests compute on the loop that
    they share with the gateway is not ours.

    Args:
        tell: gets a line for each.
        limit: seconds.
        command: whether the process is one that tests run. There the garbage collector's time
            counts, as it does not go through all that the tests hold; and the first callback of a
            loop does not: it is a program's start, for which nobody waits on the loop yet.
    """

    def __init__(self, tell: Tell, limit: float = SLOW, *, command: bool = False) -> None:
        self._tell = tell
        self._limit = limit
        self._command = command
        self._started: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._running: dict[int, _Callback] = {}
        self._collection_began = 0.0
        self._stop = threading.Event()

    @contextmanager
    def told(self) -> Iterator[None]:
        """For the length of the block."""
        run = asyncio.Handle._run
        looking = threading.Thread(target=self._look, name="loop watch", daemon=True)

        def timed(handle: asyncio.Handle) -> None:
            thread = threading.get_ident()
            callback = self._running[thread] = _Callback()
            try:
                run(handle)
            finally:
                self._running.pop(thread, None)
                self._judge(callback, handle)

        asyncio.Handle._run = timed
        gc.callbacks.append(self._collect)
        looking.start()
        try:
            yield
        finally:
            self._stop.set()
            looking.join()
            gc.callbacks.remove(self._collect)
            asyncio.Handle._run = run

    def _judge(self, callback: _Callback, handle: asyncio.Handle) -> None:
        spent = time.thread_time() - callback.cpu
        if not self._command:
            spent -= callback.collecting
        elif handle._loop not in self._started:
            self._started.add(handle._loop)
            return
        if spent < self._limit:
            return
        if not callback.seen:  # all of it in one step of C
            callback.seen[_owner(handle)] += 1
        ours = callback.seen.total() - callback.seen[None]
        if spent * ours / callback.seen.total() < self._limit:
            return
        del callback.seen[None]
        places = ", ".join(
            f"{place} ({count / ours:.0%})" for place, count in callback.seen.most_common(3)
        )
        collecting = f", {callback.collecting * 1e3:.0f} of it garbage collection"
        self._tell(
            f"{spent * 1e3:.0f} ms of processor time in one callback"
            f"{collecting if callback.collecting > self._limit / 5 else ''}:"
            f" {places}; {base_events._format_handle(handle)}"
        )

    def _look(self) -> None:
        while not self._stop.wait(_SAMPLE_EVERY):
            since = time.monotonic() - _SAMPLE_AFTER
            late = {
                thread: callback
                for thread, callback in self._running.copy().items()
                if callback.wall < since
            }
            frames = sys._current_frames() if late else {}
            for thread, callback in late.items():
                if (frame := frames.get(thread)) and self._running.get(thread) is callback:
                    callback.seen[whose(frame)] += 1

    def _collect(self, phase: str, info: dict[str, int]) -> None:
        del info
        if phase == "start":
            self._collection_began = time.thread_time()
        elif callback := self._running.get(threading.get_ident()):
            callback.collecting += time.thread_time() - self._collection_began


def whose(frame: FrameType | None) -> str | None:
    """The place in zapcore or gateway that computes, and None where it is for a test.

    What a test calls of ours is the test's doing, unless it awaits it: then it runs on the loop
    whoever calls. Making a gateway is nobody's: nothing is served yet.
    """
    place = outermost = None
    while frame is not None and frame.f_code.co_name != "timed":
        code = frame.f_code
        if code.co_filename.startswith(_OF_TESTS):
            return place if outermost and outermost.co_flags & _ASYNC else None
        if code.co_filename.startswith(_OURS):
            if code.co_qualname == _MAKING:
                return None
            outermost = code
            place = place or _place(code)
        frame = frame.f_back
    return place


def _owner(handle: asyncio.Handle) -> str | None:
    """The place of a callback itself."""
    callback = handle._callback
    of = getattr(callback, "__self__", None)
    called = of.get_coro() if isinstance(of, asyncio.Task) else callback
    code = getattr(called, "cr_code", None) or getattr(called, "__code__", None)
    return _place(code) if code is not None and code.co_filename.startswith(_OURS) else None


def _place(code: CodeType) -> str:
    return f"{Path(code.co_filename).relative_to(ROOT)}:{code.co_qualname}"
