"""Log output of a worker that was started from the command line: formats, colours, and what tasks print.

A worker inside somebody's program (`app.Worker()` without `loglevel`) leaves logging alone.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Generator, Iterable
from io import TextIOBase
from typing import TYPE_CHECKING, BinaryIO, TextIO

from amqp_tasks.app import Request, current_request
from amqp_tasks.app._request import enclosing_frame
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_tasks.settings import Settings

__all__ = ("LogSetup", "PrintCapture", "WorkerFormatter", "level_number")

_COLORS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[35m"}
_RESET = "\x1b[0m"
_MAX_LINE = 10_000

print_logger = logging.getLogger("amqp_tasks.redirected")


def level_number(name: str | int) -> int:
    """A logging level by its name, in any case.

    Raises:
        ConfigurationError: no such level.
    """
    if isinstance(name, int):
        return name
    number = logging.getLevelNamesMapping().get(name.upper())
    if number is None:
        raise ConfigurationError(f"unknown loglevel {name!r}: use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return number


class WorkerFormatter(logging.Formatter):
    """`worker_log_format`, and `worker_task_log_format` for what is logged while a task runs.

    Args:
        plain: for the worker's own records.
        task: for those of tasks; knows `%(task_id)s` and `%(task_name)s`.
        use_color: colour lines from WARNING on.
    """

    def __init__(self, plain: str, task: str, *, use_color: bool) -> None:
        super().__init__(plain)
        self._in_task = logging.Formatter(task)
        self._use_color = use_color
        self.process_name = "Supervisor"

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        record.processName = self.process_name
        request = None if record.name.startswith("amqp_tasks.worker.") else current_request()
        if request is None:
            text = super().format(record)
        else:
            record.task_id, record.task_name = _id_for(request), request.task
            text = self._in_task.format(record)
        color = _COLORS.get(record.levelno) if self._use_color else None
        return f"{color}{text}{_RESET}" if color else text


def _id_for(request: Request) -> str | None:
    """The id of the task whose lines these are. What is called directly has none: an errback speaks for the failed task that it
    is told of, anything else for the task that called it."""
    if not request.called_directly:
        return request.id
    told = request.args[0] if request.args else None
    if isinstance(told, Request):
        return told.id
    around = enclosing_frame()
    return around.request.id if around is not None else None


class LogSetup:
    """Life: 1. `install` in the supervisor, before anything forks; 2. `enter_process` in each process that runs tasks.

    Args:
        settings: formats, colour, capture of prints.
        level: least level of records.
        logfile: a path that lines are appended to; None: stderr.
    """

    def __init__(self, settings: Settings, *, level: str | int, logfile: str | None = None) -> None:
        self._worker = settings.worker
        self._level = level_number(level)
        self._logfile = logfile
        self._formatter: WorkerFormatter | None = None

    def install(self) -> None:
        """Give the root logger our handler; one that the application configured is kept unless
        `worker_hijack_root_logger` says otherwise.

        Raises:
            ConfigurationError: the log file cannot be opened.
        """
        root = logging.getLogger()
        if root.handlers and not self._worker.hijack_root_logger:
            return
        for handler in list(root.handlers):
            root.removeHandler(handler)
        handler = self._open()
        use_color = self._worker.log_color
        if use_color is None:
            use_color = self._logfile is None and sys.stderr.isatty()
        self._formatter = WorkerFormatter(
            self._worker.log_format, self._worker.task_log_format, use_color=use_color
        )
        handler.setFormatter(self._formatter)
        root.addHandler(handler)
        root.setLevel(self._level)
        # pika tells at INFO what the transport says in one line.
        logging.getLogger("pika").setLevel(max(self._level, logging.WARNING))

    def enter_process(self, name: str) -> None:
        """Name this process in its lines, and send what tasks print to the log."""
        if self._formatter is not None:
            self._formatter.process_name = name
        if self._worker.redirect_stdouts:
            level = level_number(self._worker.redirect_stdouts_level)
            sys.stdout = PrintCapture(sys.stdout, level)
            sys.stderr = PrintCapture(sys.stderr, level)

    def _open(self) -> logging.Handler:
        if self._logfile is None:
            # The real one: what goes through `sys.stderr` may be captured, and would come back here.
            return logging.StreamHandler(sys.__stderr__)
        try:
            return logging.FileHandler(self._logfile, encoding="utf-8", errors="backslashreplace")
        except OSError as exc:
            raise ConfigurationError(f"cannot open logfile {self._logfile!r}: {exc.strerror}") from exc


class PrintCapture(TextIOBase):
    """A text stream whose lines become log records, one each; what is printed by logging itself passes through."""

    def __init__(self, original: TextIO, level: int) -> None:
        super().__init__()
        self._original, self._level = original, level
        self._local = threading.local()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        """That of the stream it stands for."""
        return self._original.encoding

    @property
    def buffer(self) -> BinaryIO:
        """That of the stream it stands for: bytes are no lines, and pass through."""
        return self._original.buffer

    def writable(self) -> bool:
        """Yes."""
        return True

    def isatty(self) -> bool:
        """No: nobody should draw on it."""
        return False

    def fileno(self) -> int:
        """The descriptor of the stream it stands for; programs that a task starts write there."""
        return self._original.fileno()

    def flush(self) -> None:
        """Log a line that has no end yet."""
        with self._entered() as is_first:
            if is_first and (rest := getattr(self._local, "rest", "")):
                self._local.rest = ""
                self._log((rest,))

    def write(self, text: str) -> int:
        """Log complete lines, keep the rest until it is complete."""
        with self._entered() as is_first:
            if not is_first:
                # Logging failed and prints why: never back into logging.
                return self._original.write(text)
            *lines, rest = (getattr(self._local, "rest", "") + text).split("\n")
            if len(rest) > _MAX_LINE:
                # No line is logged longer, and what never ends must not pile up.
                lines.append(rest)
                rest = ""
            self._local.rest = rest
            self._log(lines)
        return len(text)

    def _log(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip():
                shown = printable(line.expandtabs().rstrip(), _MAX_LINE)
                print_logger.log(self._level, "%s", shown, extra={"action": "printed"})

    @contextlib.contextmanager
    def _entered(self) -> Generator[bool]:
        is_first = not getattr(self._local, "is_inside", False)
        self._local.is_inside = True
        try:
            yield is_first
        finally:
            if is_first:
                self._local.is_inside = False
