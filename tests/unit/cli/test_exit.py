"""Exit codes."""

from __future__ import annotations

import pytest

from amqp_routing import TopologyError
from amqp_tasks import errors
from amqp_tasks.cli import ExitCode
from amqp_tasks.cli._exit import exit_code_for


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.SettingsError(("x",)), ExitCode.USAGE),
        (errors.AppNotFound("x"), ExitCode.USAGE),
        (errors.UnknownQueue("x"), ExitCode.USAGE),
        (errors.TopologyMismatch(("x",)), ExitCode.USAGE),
        (errors.InvalidArguments("x"), ExitCode.USAGE),
        (errors.EncodeError("x"), ExitCode.USAGE),
        (TopologyError(("x",)), ExitCode.USAGE),
        (errors.BrokerUnreachable("x"), ExitCode.BROKER),
        (errors.BrokerAuthenticationError("x"), ExitCode.BROKER),
        (errors.BrokerAccessError("x"), ExitCode.BROKER),
        (errors.BrokerOperationError("x"), ExitCode.FAILED),
        (errors.UnroutableError("x"), ExitCode.NOT_SENT),
        (errors.SendUnknown("x"), ExitCode.SEND_UNKNOWN),
        (errors.ResultTimeout("x"), ExitCode.TIMEOUT),
        (errors.ResultUnavailable("x"), ExitCode.RESULT_UNKNOWN),
        (errors.ResultLost("x"), ExitCode.RESULT_UNKNOWN),
        (errors.RemoteError("ValueError", ("x",)), ExitCode.FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: Exception, expected: ExitCode) -> None:
    assert exit_code_for(error) is expected


def test_not_sent_for_want_of_a_broker_is_a_broker_failure() -> None:
    error = errors.NotSent("x")
    error.__cause__ = errors.BrokerUnreachable("y")

    assert exit_code_for(error) is ExitCode.BROKER
