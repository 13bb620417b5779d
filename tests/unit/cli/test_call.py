"""Options of `amqp-tasks call` that mean something only together."""

from __future__ import annotations

import pytest

from amqp_tasks.cli import ExitCode, main


def test_a_timeout_without_wait_is_refused_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["-A", "nowhere_to_be_found", "call", "proj.add", "--timeout", "5"])

    assert code == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "error: --timeout says how long to wait for the result: add --wait, or leave it out"
        " (see amqp-tasks call --help)\n"
    )
