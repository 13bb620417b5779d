"""`--where` is read, and what it is not is said clearly."""

from __future__ import annotations

from datetime import timedelta

import click
import pytest

from amqp_tasks.app import DeadLetterFilter
from amqp_tasks.cli._conditions import where

CONTEXT = click.Context(click.Command("dlq"))
OPTION = click.Option(["--where"])


def test_conditions_of_one_key_are_alternatives_and_keys_add_up() -> None:
    read = where(
        CONTEXT, OPTION, ("task=proj.*", "task=a=b", "reason=failed", "error=Key*", "id=x", "older=10m")
    )

    assert read == DeadLetterFilter(
        tasks=("proj.*", "a=b"),
        reasons=("failed",),
        errors=("Key*",),
        ids=("x",),
        older=timedelta(minutes=10),
    )
    assert where(CONTEXT, OPTION, ()).is_everything


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5h", 5400), ("10m", 600), ("3d", 259_200), ("1w", 604_800), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert where(CONTEXT, OPTION, (f"newer={text}",)).newer == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("tsk=a",), "did you mean 'task'"),
        (("nonsense",), "KEY=VALUE with one of the keys id, task"),
        (("task",), "KEY=VALUE"),
        (("=x",), "KEY=VALUE"),
        (("",), "KEY=VALUE"),
        (("task=",), "no value"),
        (("older=10x",), "names no duration"),
        (("older=-5m",), "such as 90s, 10m or 2h"),
        (("older=1e9w",), "names no duration"),
        (("older=99999999999w",), "names no duration"),
        (("older=999999999w",), "longer than"),
        (("newer=٣m",), "names no duration"),
        (("older=1h", "older=2h"), "twice"),
    ],
)
def test_what_is_no_condition_is_said(texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        where(CONTEXT, OPTION, texts)
