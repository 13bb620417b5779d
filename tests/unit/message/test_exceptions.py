"""Exceptions as data."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import pytest

from amqp_tasks import errors
from amqp_tasks.errors import (
    ChordError,
    EncodeError,
    InvalidArguments,
    NotRegistered,
    RemoteError,
    SoftTimeLimitExceeded,
    TaskDied,
    TaskExpired,
    TaskRevokedError,
    TimeLimitExceeded,
)
from amqp_tasks.message import exception_from_data, exception_to_data
from amqp_tasks.serialization import dumps, loads


class Boom(Exception):
    """A user's exception."""


class NeedsTwo(Exception):
    """One whose constructor does not take its args back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def through_json(exc: BaseException) -> Any:
    content_type, encoding, body = dumps("json", exception_to_data(exc))
    return loads(content_type, encoding, body, accept=("json",))


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("x"), KeyError("k", 2), ZeroDivisionError(), FileNotFoundError(2, "gone"), TaskRevokedError("r"),
        NotRegistered("t"), TaskExpired("late"), TaskDied("signal 9"), EncodeError("args[0]: set"),
        InvalidArguments("task 't': too many"), TypeError("any other"), SoftTimeLimitExceeded(0.5), TimeLimitExceeded(30),
    ],
)  # fmt: skip
def test_built_in_and_own_exceptions_come_back_as_their_class(exc: Exception) -> None:
    read = exception_from_data(through_json(exc))

    assert type(read) is type(exc)
    assert read.args == exc.args


@pytest.mark.parametrize(
    ("exc", "module", "name"),
    [
        (TaskRevokedError("r"), "celery.exceptions", "TaskRevokedError"),
        (TaskExpired("late"), "celery.exceptions", "TaskRevokedError"),
        (NotRegistered("t"), "celery.exceptions", "NotRegistered"),
        (InvalidArguments("x"), "builtins", "TypeError"),
        (SoftTimeLimitExceeded(5), "billiard.exceptions", "SoftTimeLimitExceeded"),
        (TimeLimitExceeded(5), "billiard.exceptions", "TimeLimitExceeded"),
    ],
)
def test_stock_clients_are_told_the_class_that_celery_would_raise(
    exc: Exception, module: str, name: str
) -> None:
    data = exception_to_data(exc)

    assert (data["exc_module"], data["exc_type"]) == (module, name)


@pytest.mark.parametrize("own", ["ResultLost", "InvalidArguments", "system", 5, ["x"], None])
def test_a_narrower_class_is_only_taken_where_it_belongs(own: object) -> None:
    data = {"exc_module": "builtins", "exc_type": "ValueError", "exc_message": ["x"], "exc_own": own}

    assert type(exception_from_data(data)) is ValueError


def test_others_come_back_as_a_remote_error() -> None:
    read = exception_from_data(through_json(Boom("x", 1)), traceback="Traceback…")

    assert isinstance(read, RemoteError)
    assert (read.exc_type, read.exc_args, read.exc_module) == ("Boom", ("x", 1), __name__)
    assert read.remote_traceback == "Traceback…"


def test_an_allowed_class_comes_back_as_itself() -> None:
    read = exception_from_data(through_json(Boom("x")), [Boom])

    assert type(read) is Boom
    assert read.args == ("x",)


def test_an_allowed_name_is_looked_up_in_loaded_modules_only(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"exc_type": "Boom", "exc_module": "late_module", "exc_message": ["x"]}
    assert isinstance(exception_from_data(data, ["late_module.Boom"]), RemoteError)
    assert "late_module" not in sys.modules

    module = types.ModuleType("late_module")
    monkeypatch.setattr(module, "Boom", Boom, raising=False)
    monkeypatch.setitem(sys.modules, "late_module", module)

    assert type(exception_from_data(data, ["late_module.Boom"])) is Boom


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("builtins", "eval"), ("builtins", "SystemExit"), ("builtins", "KeyboardInterrupt"),
        ("builtins", "StopIteration"), ("subprocess", "Popen"), ("antigravity", "x"), ("amqp_tasks.errors", "sys"), ("", "ValueError"),
    ],
)  # fmt: skip
def test_nothing_is_called_or_imported_because_a_message_names_it(module: str, name: str) -> None:
    before = set(sys.modules)

    read = exception_from_data({"exc_type": name, "exc_module": module, "exc_message": ["true"]})

    assert type(read) is RemoteError
    assert read.exc_type == name
    assert set(sys.modules) == before


@pytest.mark.parametrize("kind", [MemoryError, RecursionError, OSError, UnicodeError, RuntimeError])
def test_built_in_exceptions_are_made_as_themselves(kind: type[Exception]) -> None:
    read = exception_from_data(exception_to_data(kind("why")))

    assert type(read) is kind
    assert read.args == ("why",)


def test_an_allowed_name_that_is_no_exception_is_not_called() -> None:
    data = {"exc_type": "system", "exc_module": "os", "exc_message": ["touch /tmp/never"]}

    assert type(exception_from_data(data, ["os.system"])) is RemoteError


def test_a_constructor_that_refuses_the_arguments_gives_a_remote_error() -> None:
    read = exception_from_data(through_json(NeedsTwo(1, 2)), [NeedsTwo])

    assert type(read) is RemoteError
    assert read.exc_args == ("1 2",)


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        "text",
        [],
        {},
        {"exc_type": 5},
        {"exc_type": "E", "exc_module": ["x"]},
        {"exc_type": "E", "exc_message": 5},
    ],
)
def test_data_of_any_shape_gives_an_exception(data: object) -> None:
    assert isinstance(exception_from_data(data), RemoteError)


def test_arguments_that_json_cannot_hold_become_text() -> None:
    data = through_json(Boom(object(), {1, 2}, b"x", 10**5000, "\ud800"))

    assert data["exc_message"][0].startswith("<object")
    assert data["exc_message"][1] == "{1, 2}"
    assert isinstance(data["exc_message"][3], str)


def test_giant_arguments_are_cut() -> None:
    data = exception_to_data(Boom("x" * 1_000_000, ["y"] * 100_000, *range(100)))

    assert len(json.dumps(data)) < 40_000
    assert len(data["exc_message"]) == 32


def test_an_exception_with_hostile_parts_is_still_data() -> None:
    class Hostile(Exception):
        @property
        def args(self) -> Any:  # type: ignore[override]  # hostile on purpose
            raise RuntimeError

        def __repr__(self) -> str:
            raise RuntimeError

    assert through_json(Hostile())["exc_type"].endswith("Hostile")


@pytest.mark.parametrize("name", errors.__all__)
def test_every_own_error_survives_as_something(name: str) -> None:
    kind = getattr(errors, name)
    exc = kind.__new__(kind, "said")
    exc.args = ("said",)

    assert "said" in str(exception_from_data(through_json(exc)))


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "cause",
    [
        ValueError("no", 1),
        TaskExpired("late"),
        RemoteError("Boom", ("x", 1), exc_module=__name__),
        Boom("x", 1),
    ],
)
def test_the_cause_of_a_chords_error_travels_and_is_made_by_the_rules_of_any(cause: Exception) -> None:
    data = through_json(caused(ChordError("Dependency"), cause))

    read = exception_from_data(data, [Boom])

    assert (type(read), read.args) == (ChordError, ("Dependency",))
    expected = Boom("x", 1) if isinstance(cause, RemoteError) else cause
    assert repr(read.__cause__) == repr(expected)
    assert isinstance(exception_from_data(data).__cause__, RemoteError) == isinstance(expected, Boom)


def test_a_cause_that_is_very_large_stays_behind_and_so_does_the_cause_of_a_cause() -> None:
    inner = caused(ChordError("inner"), ValueError("no"))

    assert "exc_cause" not in exception_to_data(caused(ChordError("outer"), ValueError(*["x" * 1000] * 32)))
    assert exception_to_data(caused(ChordError("outer"), inner))["exc_cause"] == exception_to_data(
        ChordError("inner")
    )


def test_only_a_chords_error_has_its_cause_told() -> None:
    assert exception_to_data(caused(ValueError("x"), KeyError("k"))) == exception_to_data(ValueError("x"))


@pytest.mark.parametrize("cause", [None, 5, "text", ["x"], {}, {"exc_type": 5, "exc_cause": {}}])
def test_a_cause_of_any_shape_does_no_harm(cause: object) -> None:
    data = {**exception_to_data(ChordError("x")), "exc_cause": cause}

    read = exception_from_data(data)

    assert type(read) is ChordError
    assert isinstance(read.__cause__, RemoteError) == isinstance(cause, dict)
