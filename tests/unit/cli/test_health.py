"""`amqp-tasks health`: what it makes of a worker's health file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.cli import ExitCode, main


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "health.json"


def write(path: Path, *, age: float = 1.0, **facts: Any) -> None:
    report = {
        "node": "mail@box",
        "state": "running",
        "time": "2030-01-01T00:00:00",
        "monotonic": time.monotonic() - age,
        "max_age": 10.0,
        "not_ready": [],
        "not_live": [],
    }
    path.write_text(json.dumps(report | facts))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["health", *arguments])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out


def test_one_that_is_well(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path)

    assert said(capsys, str(path)) == (ExitCode.OK, "mail@box: running\n")
    assert said(capsys, str(path), "--live") == (ExitCode.OK, "mail@box: running\n")


def test_one_that_is_live_and_not_ready(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, state="reconnecting", not_ready=["process 2 does not consume 'a'", "and more"])

    assert said(capsys, str(path)) == (
        ExitCode.FAILED,
        "mail@box: process 2 does not consume 'a'; and more\n",
    )
    assert said(capsys, str(path), "--ready")[0] == ExitCode.FAILED
    assert said(capsys, str(path), "--live") == (ExitCode.OK, "mail@box: reconnecting\n")


def test_what_is_not_live_is_not_ready(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, not_live=["restart it"])

    assert said(capsys, str(path)) == (ExitCode.FAILED, "mail@box: restart it\n")
    assert said(capsys, str(path), "--live")[0] == ExitCode.FAILED


@pytest.mark.parametrize(
    ("age", "when"), [(34.0, "last 34 s ago"), (-1e9, "last before the machine was started")], ids=str
)
def test_a_file_that_is_too_old_is_not_believed(
    path: Path, capsys: pytest.CaptureFixture[str], age: float, when: str
) -> None:
    write(path, age=age)

    code, text = said(capsys, str(path), "--live")

    assert code == ExitCode.FAILED
    assert when in text
    assert "restart it" in text


@pytest.mark.parametrize("text", ["", "{}", "[]", "notes", '{"monotonic": "x"}', "1"])
def test_what_is_no_health_file_is_not_believed(
    path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path.write_text(text)

    code, said_ = said(capsys, str(path))

    assert code == ExitCode.FAILED
    assert "is no health file" in said_


def test_without_a_file_there_is_no_worker(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, str(path))

    assert code == ExitCode.FAILED
    assert "no worker has been started with it, or it has ended" in text


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, str(tmp_path))

    assert code == ExitCode.FAILED
    assert "Is a directory" in text


def test_the_path_may_be_in_the_environment_or_the_apps_settings(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path)
    other = path.with_name("other")
    write(other, node="other")

    with App("app", worker_health_file=str(other)) as app:
        assert main(["health"], app=app) == ExitCode.OK
    assert capsys.readouterr().out == "other: running\n"
    monkeypatch.setenv("AMQP_TASKS_WORKER_HEALTH_FILE", str(path))
    assert said(capsys) == (ExitCode.OK, "mail@box: running\n")
    assert said(capsys, str(other)) == (ExitCode.OK, "other: running\n")


def test_without_any_path_it_says_how_to_give_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health"], app=App("app")) == ExitCode.USAGE

    assert "set worker_health_file or AMQP_TASKS_WORKER_HEALTH_FILE" in capsys.readouterr().err


def test_json_has_both_answers_and_the_report(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, not_ready=["not yet"])

    code, text = said(capsys, str(path), "--live", "--json")

    data = json.loads(text)
    assert code == ExitCode.OK
    assert (data["is_ready"], data["is_live"], data["faults"]) == (False, True, [])
    assert data["report"]["node"] == "mail@box"
    path.unlink()
    code, text = said(capsys, str(path), "--json")
    assert code == ExitCode.FAILED
    assert json.loads(text)["report"] is None
