"""Exit codes, and which error ends with which: the one place that knows."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from amqp_routing import RoutingError
from amqp_tasks import errors

__all__ = ("ExitCode", "exit_code_for")


class ExitCode(IntEnum):
    """What a command's exit status means; the texts are shown by `--help` and in the reference."""

    description: str

    def __new__(cls, value: int, description: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    OK = 0, "done"
    FAILED = 1, "no: a task failed, a check found differences, a stop was forced"
    USAGE = 2, "usage or configuration: change the command line or a setting"
    BROKER = 3, "the broker is unreachable, or refuses credentials or virtual host"
    NOT_SENT = 4, "the message is certainly not stored"
    SEND_UNKNOWN = 5, "the message may be stored: send it again with the same --task-id"
    TIMEOUT = 6, "--timeout ended first; the task goes on"
    RESULT_UNKNOWN = 7, "this result cannot be known here"
    INTERRUPTED = 130, "interrupted (Ctrl-C)"


# First match wins, so a narrower class stands above its base.
_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (errors.ResultUnavailable, ExitCode.RESULT_UNKNOWN),
    (errors.ResultLost, ExitCode.RESULT_UNKNOWN),
    (errors.ResultTimeout, ExitCode.TIMEOUT),
    (errors.ConfigurationError, ExitCode.USAGE),
    (errors.InvalidArguments, ExitCode.USAGE),
    (errors.EncodeError, ExitCode.USAGE),
    (errors.BrokerConnectionError, ExitCode.BROKER),
    (errors.NotSent, ExitCode.NOT_SENT),
    (errors.SendUnknown, ExitCode.SEND_UNKNOWN),
    (RoutingError, ExitCode.USAGE),
)


def exit_code_for(error: Exception) -> ExitCode:
    """The exit code of a command that ended with `error`.

    A message that was not sent because no broker could be reached counts as `BROKER`.
    """
    if isinstance(error, errors.NotSent) and isinstance(error.__cause__, errors.BrokerConnectionError):
        return ExitCode.BROKER
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED
