"""Tables and JSON on stdout."""

from __future__ import annotations

import json

import pytest

from amqp_tasks.cli._output import print_json, print_table


def test_columns_are_as_wide_as_their_cells_and_numbers_stand_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("queue", "ready"), [("hipri", 3), ("a-long-name", 12345)])

    assert capsys.readouterr().out.splitlines() == [
        "queue        ready",
        "hipri            3",
        "a-long-name  12345",
    ]


def test_what_is_missing_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("queue", "ready"), [("gone", None)])

    assert capsys.readouterr().out.splitlines()[1] == "gone       -"


def test_a_table_without_rows_is_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("queue", "ready"), [])

    assert capsys.readouterr().out == "queue  ready\n"


def test_control_characters_in_names_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("queue",), [("evil\x1b[2J\nname",)])
    print_json({"name": "evil\x1b[2J\x9b"})

    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x9b" not in printed
    assert len(printed.splitlines()) == 5


def test_json_keeps_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, None, "é"]})

    assert json.loads(capsys.readouterr().out) == {"a": [1, None, "é"]}
