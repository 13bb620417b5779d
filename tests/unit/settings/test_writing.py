"""What code writes to `conf` is checked there and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import SettingsError, UnsupportedTransport
from amqp_tasks.settings import Conf


def _conf(**settings: object) -> Conf:
    return Conf(environ={}, **settings)


def _assign(conf: Conf) -> None:
    conf.task_serialiser = "json"


def _set_item(conf: Conf) -> None:
    conf["task_serialiser"] = "json"


def _construct(conf: Conf) -> None:
    del conf
    App("shop", task_serialiser="json")


@pytest.mark.parametrize(
    "write",
    [
        lambda conf: conf.update(task_serialiser="json"),
        lambda conf: conf.update({"task_serialiser": "json"}),
        _assign,
        _set_item,
        _construct,
    ],
)
def test_misspelt_name_is_refused_where_it_is_written(write: Callable[[Conf], None]) -> None:
    with pytest.raises(SettingsError) as caught:
        write(_conf())

    assert caught.value.faults == (
        "unknown setting 'task_serialiser', did you mean 'task_serializer'? [argument]",
    )


def test_wrong_value_is_refused_where_it_is_written() -> None:
    with pytest.raises(SettingsError, match="task_serializer: expected one of 'json', 'msgpack', 'yaml'"):
        _conf().task_serializer = "jsn"


def test_url_of_an_unknown_scheme_is_refused_where_it_is_written() -> None:
    with pytest.raises(UnsupportedTransport, match="supported: amqp://"):
        _conf().broker_url = "sqs://mq"


def test_all_faults_of_one_update_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        _conf().update(
            CELERYD_CONCURRENCY=0,
            worker_pool="eventlett",
            task_serialiser="x",
            timezone="UTC",
            beat_schedule={},
        )

    told = [fault.split(": ")[0].split(",")[0] for fault in caught.value.faults]
    assert sorted(told) == [
        "beat_schedule",
        "old and new names are mixed",
        "unknown setting 'task_serialiser'",
        "worker_concurrency",
        "worker_pool",
    ]


def test_refused_update_changes_nothing() -> None:
    conf = _conf(timezone="Asia/Tokyo")
    before, generation = conf.settings(), conf.generation

    with pytest.raises(SettingsError):
        conf.update(timezone="Europe/Berlin", worker_concurrency=0)

    assert conf.settings() is before
    assert conf.generation == generation
    assert conf.timezone == "Asia/Tokyo"


def test_clash_of_settings_in_one_update_is_refused_there() -> None:
    with pytest.raises(SettingsError, match="worker_pool='solo' runs one task at a time"):
        _conf().update(worker_pool="solo", worker_concurrency=2)


def test_clash_with_what_is_set_elsewhere_is_told_when_settings_are_read() -> None:
    conf = _conf(worker_concurrency=2)

    conf.worker_pool = "solo"

    with pytest.raises(SettingsError, match="worker_pool='solo' runs one task at a time"):
        conf.settings()


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({"task_serializer": "msgpack"}, {"accept_content": ["msgpack", "json"]}),
        (
            {"result_serializer": "msgpack", "accept_content": ["json"]},
            {"result_accept_content": ["msgpack"]},
        ),
    ],
)
def test_write_that_another_source_completes_is_taken(
    settings: dict[str, Any], config: dict[str, Any]
) -> None:
    conf = _conf()
    conf.config_from_object(config)

    conf.update(settings)

    assert {name: conf[name] for name in settings} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }


def test_writing_loads_no_config_object() -> None:
    conf = _conf()
    conf.config_from_object("no_such_celeryconfig")

    conf.worker_concurrency = 2

    with pytest.raises(SettingsError, match="no_such_celeryconfig"):
        conf.settings()


def test_iterator_keeps_its_items() -> None:
    conf = _conf(imports=(name for name in ("a", "b")))
    assert conf.imports == ("a", "b")

    conf.worker_concurrency = 2

    assert conf.imports == ("a", "b")
