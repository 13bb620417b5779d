"""Tables and JSON on stdout."""

from __future__ import annotations

import io
import json
import math
import sys

import pytest

from amqp_tasks.cli._output import print_json, print_table
from amqp_tasks.cli._streams import make_streams_usable


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
    print_json({"name": "evil\x1b[2J\x9b\u202e\U000e0001\ud800"})

    printed = capsys.readouterr().out
    assert not set(printed) & set("\x1b\x9b\u202e\U000e0001\ud800")
    assert len(printed.splitlines()) == 5


def test_json_keeps_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"a": [1, None, "é"], "\u202e": "\x9b\U000e0001\ud800\n\u3000"}
    print_json(data)

    assert json.loads(capsys.readouterr().out) == data


def test_json_can_be_read_in_any_script(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"姓": "张三"})

    assert '"姓": "张三"' in capsys.readouterr().out


def test_numbers_that_json_cannot_say_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"nan": math.nan, "inf": [math.inf, (-math.inf, 1.5)]})

    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=pytest.fail) == {"nan": "nan", "inf": ["inf", ["-inf", 1.5]]}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_what_the_encoding_of_stdout_does_not_know_is_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))

    make_streams_usable()
    print_json({"name": "张三😀"})
    print_table(("queue",), [("队列",)])
    sys.stdout.flush()

    text = written.getvalue().decode(encoding)
    shown, _, table = text.partition("queue")
    assert json.loads(shown) == {"name": "张三😀"}
    assert table.split() == ["\\u961f\\u5217"]
