"""What pika logs about failures that we handle and log ourselves."""

from __future__ import annotations

import logging

__all__ = ("THREAD_NAME", "doing_io", "quieten_pika")

THREAD_NAME = "amqp-tasks-io"
RESOLVER = "_resolve"  # pika looks names up in a thread of its own, which has no name to know it by

doing_io: set[int] = set()
"""Idents of threads that lead: they do the I/O thread's work at present."""

_PIKA_LOGGERS = (
    "pika.adapters.base_connection",
    "pika.adapters.select_connection",
    "pika.adapters.utils.connection_workflow",
    "pika.adapters.utils.io_services_utils",
    "pika.adapters.utils.selector_ioloop_adapter",
    "pika.callback",
    "pika.channel",
    "pika.connection",
    "pika.heartbeat",
)


class _PikaReports(logging.Filter):
    """Turns what pika reports while it does our I/O into DEBUG records.

    pika logs each failed attempt several times, with tracebacks; we handle those failures and log them once. Other
    threads' use of pika is untouched.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = record.threadName == THREAD_NAME or record.thread in doing_io or record.funcName == RESOLVER
        if is_ours and record.levelno > logging.DEBUG:
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            # The level was checked before this filter ran; a handler without a level would still print it.
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


_REPORTS = _PikaReports()


def quieten_pika() -> None:
    """Idempotent."""
    for name in _PIKA_LOGGERS:
        logging.getLogger(name).addFilter(_REPORTS)  # adding the same filter twice does nothing
