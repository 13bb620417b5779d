"""The dead letter of what cannot be sent shows its arguments as any message of its task does."""

from __future__ import annotations

from typing import NoReturn

import pytest

from amqp_tasks import App
from amqp_tasks.canvas import Signature
from amqp_tasks.worker._unsent import unsent_letter

APP = App("proj", broker="memory://")


@APP.task(sensitive=("password",))
def login(user: str, password: str) -> None: ...


@pytest.mark.parametrize("max_bytes", [1000, 0])
@pytest.mark.parametrize(
    ("call", "value"),
    [
        (login.s("canary"), ("bob",)),
        (login.s("canary"), ("bob" * 400,)),
        (login.si("bob", password="canary"), ()),
        (login.starmap([("bob", "canary")]), ()),
    ],
    ids=["after a value", "after a large value", "alone", "items"],
)
def test_what_cannot_be_sent_shows_no_sensitive_argument(
    call: Signature, value: tuple[str, ...], max_bytes: int
) -> None:
    letter = unsent_letter(
        call, value, app=APP, queue_name="hipri", what="next of task a", error=ValueError("no"), hostname="me",
        max_bytes=max_bytes,
    )  # fmt: skip

    assert "canary" not in str(letter.properties.all_headers())
    assert (b"canary" in letter.body) == bool(max_bytes)


def test_arguments_that_exit_as_they_are_written_are_left_out() -> None:
    class Exiting:
        def __json__(self) -> NoReturn:
            raise SystemExit

    letter = unsent_letter(
        login.s("secret"), (Exiting(),), app=APP, queue_name="hipri", what="next of task a",
        error=ValueError("no"), hostname="me", max_bytes=1000,
    )  # fmt: skip

    assert b"Exiting" not in letter.body
    assert b"secret" in letter.body
