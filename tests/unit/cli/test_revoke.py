"""How `amqp-tasks revoke --stamp` reads the values of stamps."""

from __future__ import annotations

import pytest

from amqp_tasks.cli import ExitCode, main

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("value", ["12e4567", "1e999", "-1e999", "NaN", "Infinity", "9" * 40])
def test_a_value_that_reads_as_a_number_that_no_stamp_can_be_is_a_text(value: str, capsys: Captured) -> None:
    code = main(["-b", "memory://", "revoke", "--stamp", f"commit={value}"])

    assert (code, capsys.readouterr().err) == (ExitCode.OK, f"revoked: all with commit={value}\n")


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000])
def test_a_value_that_json_cannot_read_is_a_text(value: str, capsys: Captured) -> None:
    code = main(["-b", "memory://", "unrevoke", "--stamp", f"commit={value}"])

    assert code == ExitCode.USAGE
    assert "has more than 255 characters" in capsys.readouterr().err


def test_a_signal_without_terminate_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["-b", "memory://", "revoke", "x", "--signal", "SIGKILL"])

    assert code == ExitCode.USAGE
    assert "add --terminate" in capsys.readouterr().err
