"""`countdown` and `eta`, from the call to the start of the task."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from amqp_tasks import App
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import OutgoingMessage

BERLIN = ZoneInfo("Europe/Berlin")
TOLERANCE = 0.05


@pytest.fixture
def app() -> Iterator[App]:
    made = App("proj", broker=f"memory://{uuid4().hex}/", timezone="Europe/Berlin")
    made.task(name="job")(lambda: None)
    yield made
    made.close()


def message_of(app: App, **options: Any) -> OutgoingMessage:
    return app.calls.prepare(app.tasks["job"], (), {}, options, deadline=time.monotonic() + 5).message  # type: ignore[arg-type]  # any options


def eta_of(message: OutgoingMessage) -> datetime:
    return datetime.fromisoformat(message.properties.headers["eta"])


def test_a_countdown_is_a_delay_and_an_eta(app: App) -> None:
    before = datetime.now(UTC)

    message = message_of(app, countdown=2.5, expires=60)

    assert message.delay == pytest.approx(2.5)
    assert timedelta(0) <= eta_of(message) - before - timedelta(seconds=2.5) < timedelta(seconds=5)
    # As in Celery `expires` counts from the call.
    expires = datetime.fromisoformat(message.properties.headers["expires"])
    assert expires - eta_of(message) == pytest.approx(timedelta(seconds=57.5), abs=timedelta(seconds=1))


def test_a_call_without_either_has_none(app: App) -> None:
    message = message_of(app)

    assert message.delay is None
    assert message.properties.all_headers()["eta"] is None


@pytest.mark.parametrize("zone", [UTC, BERLIN, timezone(timedelta(hours=-7))])
def test_an_aware_eta_means_what_it_says(app: App, zone: Any) -> None:
    eta = datetime.now(zone) + timedelta(hours=1)

    message = message_of(app, eta=eta)

    assert eta_of(message) == eta
    assert message.delay == pytest.approx(3600, abs=5)


@pytest.mark.parametrize(("fold", "offset"), [(0, 2), (1, 1)])
def test_a_naive_eta_is_in_the_apps_timezone(app: App, fold: int, offset: int) -> None:
    # The hour that the end of summer time brings twice.
    eta = datetime(2041, 10, 27, 2, 30, fold=fold)  # noqa: DTZ001 - naive on purpose

    sent = eta_of(message_of(app, eta=eta))

    assert sent.utcoffset() == timedelta(hours=offset)
    assert sent == datetime(2041, 10, 27, 2 - offset, 30, tzinfo=UTC)


def test_a_naive_eta_is_warned_of_once(app: App, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "amqp_tasks"):
        for _ in range(3):
            message_of(app, eta=datetime(2041, 1, 1))  # noqa: DTZ001 - naive on purpose
        message_of(app, eta=datetime(2041, 1, 1, tzinfo=UTC))

    assert [getattr(record, "action", "") for record in caplog.records] == ["naive_eta"]


@pytest.mark.parametrize(
    "options", [{"countdown": 0}, {"countdown": -5}, {"eta": datetime(2020, 1, 1, tzinfo=UTC)}]
)
def test_what_is_past_is_now(app: App, options: dict[str, Any]) -> None:
    message = message_of(app, **options)

    assert message.delay is None
    assert eta_of(message) <= datetime.now(UTC)


def test_a_countdown_and_an_eta_exclude_each_other(app: App) -> None:
    with pytest.raises(ConfigurationError, match="exclude each other"):
        message_of(app, countdown=1, eta=datetime(2041, 1, 1, tzinfo=UTC))


def test_a_time_no_calendar_holds_is_refused(app: App) -> None:
    with pytest.raises(ConfigurationError, match="a calendar can hold"):
        message_of(app, countdown=1e12)
    with pytest.raises(ConfigurationError, match="at most a century"):
        app.tasks["job"].apply_async(countdown=1e12)
