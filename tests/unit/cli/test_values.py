"""Values of options."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
import pytest

from amqp_tasks.cli._values import (
    Seconds,
    comma_separated,
    concurrency,
    json_list,
    json_object,
    not_empty,
    point_in_time,
)

OPTION = click.Option(["--option"])


def convert(callback: Callable[[click.Context, click.Parameter, Any], Any], text: str | None) -> Any:
    """What a callback makes of a text."""
    return callback(click.Context(click.Command("command")), OPTION, text)


def test_names_are_split_at_commas_without_blanks() -> None:
    assert convert(comma_separated, "hipri, lopri") == ("hipri", "lopri")


def test_an_option_that_is_not_given_stays_none() -> None:
    assert convert(comma_separated, None) is None
    assert convert(concurrency, None) is None


@pytest.mark.parametrize("text", ["", "a,,b", ",", "a, "])
def test_an_empty_name_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="empty name"):
        convert(comma_separated, text)


def test_a_text_that_must_not_be_empty() -> None:
    assert convert(not_empty, "x") == "x"
    with pytest.raises(click.BadParameter, match="it is empty"):
        convert(not_empty, "")


def test_concurrency_is_a_number_or_auto() -> None:
    assert [convert(concurrency, text) for text in ("4", "auto")] == [4, "auto"]


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "", "²"])
def test_any_other_concurrency_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="at least 1"):
        convert(concurrency, text)


def test_a_time_is_iso_8601() -> None:
    assert convert(point_in_time, "2041-05-01T09:00Z") == datetime(2041, 5, 1, 9, tzinfo=UTC)
    assert convert(point_in_time, None) is None
    with pytest.raises(click.BadParameter, match="is no time"):
        convert(point_in_time, "tomorrow")


def test_json_arguments_are_decoded() -> None:
    assert convert(json_list, '[1, "é"]') == [1, "é"]
    assert convert(json_object, '{"x": null}') == {"x": None}


@pytest.mark.parametrize(
    ("callback", "text", "message"),
    [
        (json_list, "[1", "is not JSON"),
        (json_list, "[" * 100_000, "is not JSON"),
        (json_list, "3", "expected a list such as"),
        (json_list, "{}", "expected a list such as"),
        (json_object, "[]", "expected an object such as"),
    ],
)
def test_what_is_no_json_of_that_kind_is_refused(
    callback: Callable[[click.Context, click.Parameter, Any], Any], text: str, message: str
) -> None:
    with pytest.raises(click.BadParameter, match=message):
        convert(callback, text)


@pytest.mark.parametrize("text", ["nan", "inf", "-nan", "1e999"])
def test_seconds_are_finite(text: str) -> None:
    with pytest.raises(click.BadParameter, match="finite number of seconds"):
        Seconds(min=0).convert(text, OPTION, None)


def test_seconds_keep_to_their_range() -> None:
    assert Seconds(min=0).convert("1.5", OPTION, None) == 1.5
    with pytest.raises(click.BadParameter, match="range"):
        Seconds(min=0, min_open=True).convert("0", OPTION, None)


@pytest.mark.parametrize("text", ["1e10", "1e300"])
def test_seconds_are_no_more_than_a_wait_can_be(text: str) -> None:
    with pytest.raises(click.BadParameter, match="at most"):
        Seconds(min=0).convert(text, OPTION, None)
