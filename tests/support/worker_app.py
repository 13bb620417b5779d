"""The app of the worker tests: one task whose argument says what becomes of it, reporting to the ledger."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

from amqp_tasks import App, Task, current_request
from amqp_tasks.errors import SoftTimeLimitExceeded, TaskRevokedError
from amqp_tasks.worker._link import Link
from support.eventually import let_pass, wait_until
from support.ledger import Ledger

QUEUE = "work"

app = App("worker_app", task_default_queue=QUEUE)


def _ledger() -> Ledger:
    return Ledger(Path(os.environ["AMQP_TASKS_TEST_LEDGER"]))


def _wait_for(path: str) -> None:
    """Until the test makes this file; bounded, as everything."""
    wait_until(Path(path).exists, within=60)


def _ok(key: str, argument: Any) -> Any:
    return key


def _fail(key: str, argument: Any) -> Any:
    raise ValueError(f"{key} fails")


def _kill(key: str, argument: Any) -> Any:
    os.kill(os.getpid(), signal.Signals(argument))


def _exit(key: str, argument: Any) -> Any:
    os._exit(argument)


def _segfault(key: str, argument: Any) -> Any:
    ctypes.string_at(0)


def _outgrow(key: str, argument: Any) -> Any:
    """C code that does not look whether it got its memory, under a limit."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    resource.setrlimit(resource.RLIMIT_DATA, (argument, argument))
    ctypes.memset(libc.malloc(ctypes.c_size_t(argument)), 0, 1)


def _close_all(key: str, argument: Any) -> Any:
    """What makes itself a daemon closes all descriptors but the first `argument`; it goes on, its process cannot."""
    os.closerange(argument, 256)
    return key


def _close_link(key: str, argument: Any) -> Any:
    """Close the one descriptor that leads to the supervisor, and go on."""
    _cut_off()
    return _wait(key, argument)


def _cut_off() -> None:
    (link,) = (each for each in gc.get_objects() if isinstance(each, Link) and each.socket.fileno() >= 0)
    os.close(link.socket.fileno())


def _wait(key: str, argument: Any) -> Any:
    _wait_for(argument)
    return key


def _wait_and_fail(key: str, argument: Any) -> Any:
    _wait_for(argument)
    raise RuntimeError(key)


def _sleep(key: str, argument: Any) -> Any:
    """Work that takes so many seconds, and may be interrupted."""
    let_pass(argument)
    return key


def _time(key: str, argument: Any) -> Any:
    """When it ran, by the system's clock."""
    return time.time()


def _monotonic(key: str, argument: Any) -> Any:
    """When it ran, by a clock that all processes share."""
    return time.monotonic()


def _spin(key: str, argument: Any) -> Any:
    """Busy in Python for so many seconds."""
    deadline = time.monotonic() + argument
    while time.monotonic() < deadline:
        pass
    return key


def _tidy(key: str, argument: Any) -> Any:
    """Sleep, and clean up when the soft limit comes first."""
    try:
        let_pass(argument)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return key


def _hog(key: str, argument: Any) -> Any:
    """C code that keeps the interpreter to itself for so many seconds."""
    ctypes.PyDLL(None).sleep(argument)
    return key


def _grind(key: str, argument: Any) -> Any:
    """Busy in C code for so many seconds, without letting the interpreter go."""
    deadline = time.monotonic() + argument
    deque(takewhile(deadline.__gt__, iter(time.monotonic, None)), maxlen=0)
    return key


def _grow(key: str, argument: Any) -> Any:
    _kept.append(b"x" * argument)
    return key


def _no_memory(key: str, argument: Any) -> Any:
    raise MemoryError


def _sys_exit(key: str, argument: Any) -> Any:
    raise SystemExit(argument)


def _print(key: str, argument: Any) -> Any:
    print(argument)
    return key


def _return(key: str, argument: Any) -> Any:
    return {"text": "x" * argument} if isinstance(argument, int) else object()


def _orphan(key: str, argument: Any) -> Any:
    """Leave a grandchild behind that ends when its parent, forked in between, is gone."""
    parent = os.fork()
    if not parent:
        if os.fork():
            os._exit(0)
        _ledger().record("orphan-ended", key)
        os._exit(0)
    os.waitpid(parent, 0)
    return key


def _fork(key: str, argument: Any) -> Any:
    """Have a child that ends as scripts end, and go on when it is gone."""
    child = os.fork()
    if not child:
        if argument == "raise":
            raise ValueError("of the child")
        if argument == "return":
            return "of the child"
        sys.exit(argument)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


_before_fork: set[str] = set()
os.register_at_fork(after_in_child=lambda: _before_fork.update(sys.modules))


def _imported(key: str, argument: Any) -> Any:
    """The modules that this process imported by itself since it was forked."""
    return sorted(set(sys.modules) - _before_fork)


def _clean_up(key: str, argument: Any) -> Any:
    """Wait for a signal with a handler of its own, and report what it does then."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(number)

    signal.signal(signal.Signals[argument], leave)
    _ledger().record("handles", key)
    try:
        signal.pause()
    except SystemExit:
        _ledger().record("cleaned", key)
    return key


def _revoked_error(key: str, argument: Any) -> Any:
    raise TaskRevokedError(f"{key} is not revoked")


def _until_cancelled(key: str, argument: Any) -> Any:
    """Go on until it is revoked; then end as it is told."""
    wait_until(act.cancelled, within=60)
    _ledger().record("cancelled", key)
    if argument == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if argument == "return":
        return key
    raise TaskRevokedError(argument)


_kept: list[bytes] = []


def _delivery(key: str, argument: Any) -> Any:
    """What it is told of its own delivery, once the gate is open."""
    _wait_for(argument)
    request = current_request()
    assert request is not None
    return [request.id, request.delivery_info["redelivered"], request.retries]


_ACTIONS: dict[str, Callable[[str, Any], Any]] = {
    "ok": _ok,
    "delivery": _delivery,
    "fail": _fail,
    "signal": _kill,
    "exit": _exit,
    "segfault": _segfault,
    "outgrow": _outgrow,
    "close-all": _close_all,
    "close-link": _close_link,
    "wait": _wait,
    "wait and fail": _wait_and_fail,
    "sleep": _sleep,
    "time": _time,
    "monotonic": _monotonic,
    "spin": _spin,
    "tidy": _tidy,
    "clean-up": _clean_up,
    "hog": _hog,
    "grind": _grind,
    "grow": _grow,
    "no-memory": _no_memory,
    "sys-exit": _sys_exit,
    "print": _print,
    "return": _return,
    "orphan": _orphan,
    "fork": _fork,
    "revoked-error": _revoked_error,
    "until-cancelled": _until_cancelled,
    "imported": _imported,
}


def perform(key: str, action: str, argument: Any, task_id: str) -> Any:
    """Report `start`, do it, report `done`; returns the key, mostly."""
    ledger = _ledger()
    ledger.record("start", key, task_id)
    returned = _ACTIONS[action](key, argument)
    ledger.record("done", key, task_id)
    return returned


@app.task(name="act")
def act(key: str, action: str = "ok", argument: Any = None) -> Any:
    """What `perform` does."""
    request = current_request()
    return perform(key, action, argument, (request.id if request else None) or "")


@app.task(name="act_early", acks_late=False)
def act_early(key: str, action: str = "ok", argument: Any = None) -> Any:
    """As `act`, acked before it runs."""
    return act(key, action, argument)


@app.task(name="act_tracked", track_started=True)
def act_tracked(key: str, action: str = "ok", argument: Any = None) -> Any:
    """As `act`; its start is told."""
    return act(key, action, argument)


@app.task(name="act_limited", soft_time_limit=0.3)
def act_limited(key: str, action: str = "ok", argument: Any = None) -> Any:
    """As `act`, with a limit of its own."""
    return act(key, action, argument)


class _Lingering(Task[..., Any]):
    """Its hooks report `hook`, and wait for the gate that the task got as its argument."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self._linger(*args)

    def on_dead(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._linger(*args)

    def _linger(self, key: str, gate: str, *_: Any) -> None:
        _ledger().record("hook", key)
        _wait_for(gate)


@app.task(name="act_lingering", base=_Lingering)
def act_lingering(key: str, gate: str, action: str = "ok", argument: Any = None) -> Any:
    """As `act`; its hook takes longer."""
    return act(key, action, argument)


class _Forking(Task[..., Any]):
    """Its hooks have a child that returns from there, and end when it is gone."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self._fork()

    def on_dead(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._fork()

    def _fork(self) -> None:
        if child := os.fork():
            os.waitpid(child, 0)


@app.task(name="act_forking", base=_Forking)
def act_forking(key: str, action: str = "ok", argument: Any = None) -> Any:
    """As `act`; its hooks fork."""
    return act(key, action, argument)


class _ForkingOnce(Task[..., Any]):
    """The hook that the task got the name of has a child that ends there with a code, and reports how that has ended."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self._fork("before_start", *args)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self._fork("on_success", *args)

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        _ledger().record("after", args[0])

    def _fork(self, here: str, key: str, hook: str, code: int) -> None:
        if here != hook:
            return
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            _ledger().record("child", str(os.waitstatus_to_exitcode(status)))
        elif code:
            sys.exit(code)


@app.task(name="act_forking_once", base=_ForkingOnce)
def act_forking_once(key: str, hook: str, code: int) -> Any:
    """As `act`; one of its hooks forks."""
    return act(key)


class _Closing(Task[..., Any]):
    """Its hook closes the one descriptor that leads to the supervisor."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        _cut_off()


@app.task(name="act_closing", base=_Closing)
def act_closing(key: str) -> Any:
    """As `act`; its hook breaks the process."""
    return act(key)


def _paced(self: Task[..., Any], key: str) -> dict[str, Any]:
    """When it started, by a clock that all processes share, and how it was sent."""
    started = time.monotonic()
    _ledger().record("start", key)
    request = self.request
    if self.max_retries and not request.retries:
        raise self.retry(countdown=0)
    _ledger().record("done", key)
    return {
        "started": started,
        "headers": dict(request.headers),
        "priority": request.delivery_info["priority"],
        "retries": request.retries,
    }


def _paced_killer(key: str) -> None:
    _ledger().record("start", key)
    os.kill(os.getpid(), signal.SIGKILL)


# Ten in a second, which the worker holds; one in 2.5 seconds, too long for it.
app.task(name="paced", bind=True, rate_limit="10/s", max_retries=0)(_paced)
app.task(name="paced_slowly", bind=True, rate_limit="24/m", max_retries=0)(_paced)
app.task(name="paced_killer", rate_limit="24/m")(_paced_killer)
# The same for all nodes together: four in a second, one in 1.5 seconds, a hundred in a second.
app.task(name="shared", bind=True, cluster_rate_limit="4/s", max_retries=0)(_paced)
app.task(name="shared_slowly", bind=True, cluster_rate_limit="40/m", max_retries=0)(_paced)
app.task(name="shared_both", bind=True, rate_limit="2/s", cluster_rate_limit="10/s", max_retries=0)(_paced)
app.task(name="shared_fast", bind=True, cluster_rate_limit="100/s", max_retries=0)(_paced)
app.task(name="paced_again", bind=True, rate_limit="2/s", max_retries=1)(_paced)


@app.task(name="count", ignore_result=True)
def count(key: str) -> None:
    """Only reports `done`; the ledger file is opened each time, as processes come and go."""
    _ledger().record("done", key)
