"""`Conf`: precedence, writing, reading, origins, introspection."""

from __future__ import annotations

import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks.errors import ConfigurationError, SettingsError, UnsupportedTransport
from amqp_tasks.settings import BrokerUrl, Conf, Level, ResultUrl, Secret
from amqp_tasks.settings._models import FIELDS

CANARY = "s3cr3t-canary"


def _conf(**settings: object) -> Conf:
    return Conf(environ={}, **settings)


def test_defaults_are_the_safe_ones() -> None:
    settings = _conf().settings()

    assert settings.broker.url == (BrokerUrl(),)
    assert settings.task.acks_late is True
    assert settings.task.default_queue_type == "quorum"
    assert settings.task.dead_letter_queues is True
    assert settings.app.accept_content == ("json",)
    assert settings.result.backend == ResultUrl(scheme="rpc")
    assert settings.broker.tls_verify is True


def test_attribute_and_item_write_the_same_setting() -> None:
    conf = _conf()

    conf.task_serializer = "msgpack"
    conf["accept_content"] = ["json", "msgpack"]

    assert conf.task_serializer == conf["task_serializer"] == "msgpack"
    assert conf.settings().app.accept_content == ("json", "msgpack")


def test_later_update_wins() -> None:
    conf = _conf(result_expires=1)

    conf.update(result_expires=3600)
    conf.update({"result_expires": 60}, timezone="Asia/Shanghai")

    assert (conf.result_expires, conf.timezone) == (60.0, "Asia/Shanghai")


def test_later_write_wins_under_another_name_of_the_setting() -> None:
    conf = _conf()

    conf.update(worker_stop_timeout=1)
    conf.update(worker_soft_shutdown_timeout=2)
    conf.BROKER_URL = "amqp://old"
    conf.broker_url = "amqp://new"

    assert conf.worker_stop_timeout == 2.0
    assert [url.host for url in conf.settings().broker.url] == ["new"]
    assert conf.broker_url == conf.BROKER_URL


def test_argument_wins_over_environment_over_config_over_added_default() -> None:
    conf = Conf(environ={"AMQP_TASKS_TASK_DEFAULT_QUEUE": "env", "AMQP_TASKS_RESULT_EXPIRES": "2"})
    conf.add_defaults({"task_default_queue": "added", "timezone": "Asia/Tokyo", "worker_pool": "threads"})
    conf.config_from_object({"task_default_queue": "config", "result_expires": 3, "worker_pool": "solo"})
    conf.task_default_queue = "argument"

    assert (conf.task_default_queue, conf.result_expires, conf.worker_pool, conf.timezone) == (
        "argument",
        2.0,
        "solo",
        "Asia/Tokyo",
    )
    assert [
        str(conf.origin(name))
        for name in ("task_default_queue", "result_expires", "worker_pool", "timezone", "topology")
    ] == ["argument", "environment AMQP_TASKS_RESULT_EXPIRES", "config dict", "added default", "default"]
    assert conf.origin("result_expires").level is Level.ENVIRONMENT


def test_deleting_a_value_uncovers_the_next_source() -> None:
    conf = _conf(worker_concurrency=4)
    conf.config_from_object({"worker_concurrency": 2})

    del conf.worker_concurrency

    assert conf.worker_concurrency == 2
    with pytest.raises(AttributeError, match="was not set on conf"):
        del conf.worker_concurrency
    with pytest.raises(KeyError):
        del conf["worker_concurrency"]


def test_value_written_under_its_old_name_can_be_deleted() -> None:
    conf = _conf(CELERYD_CONCURRENCY=4)

    del conf.worker_concurrency

    assert conf.worker_concurrency is None


def test_valid_settings_are_kept_until_something_is_written() -> None:
    conf = _conf()
    first, generation = conf.settings(), conf.generation

    assert conf.settings() is first

    conf.worker_concurrency = 3

    assert conf.generation > generation
    assert conf.settings() is not first
    assert first.worker.concurrency is None


def test_unknown_name_raises_when_read() -> None:
    conf = _conf()

    with pytest.raises(
        AttributeError, match="unknown setting 'task_serialiser', did you mean 'task_serializer'"
    ):
        conf.task_serialiser  # noqa: B018
    with pytest.raises(KeyError, match="unknown setting 'nothing_like_it'"):
        conf["nothing_like_it"]
    with pytest.raises(KeyError):
        conf.origin("nothing_like_it")
    assert conf.get("nothing_like_it", 7) == 7
    assert conf.get("task_default_queue", 7) == "default"
    assert "nothing_like_it" not in conf


def test_conf_iterates_over_all_names() -> None:
    conf = _conf()

    assert list(conf) == list(FIELDS) == list(conf.keys())
    assert len(conf) == len(FIELDS)
    assert "task_routes" in conf
    assert "BROKER_URL" in conf
    assert dict(conf) == {name: conf[name] for name in FIELDS}
    assert "task_routes" in dir(conf)


def test_methods_of_conf_cannot_be_overwritten() -> None:
    with pytest.raises(AttributeError, match="not a setting"):
        _conf().update = 3  # type: ignore[method-assign, assignment] # the point of the test


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("broker_url", "amqp://a;amqps://b", (BrokerUrl.parse("amqp://a"), BrokerUrl.parse("amqps://b"))),
        ("broker_url", ["amqp://a", BrokerUrl()], (BrokerUrl.parse("amqp://a"), BrokerUrl())),
        ("broker_login_method", None, "PLAIN"),
        ("broker_use_ssl", False, None),
        ("result_backend", None, None),
        ("result_backend", "disabled", None),
        ("result_backend", "rpc", ResultUrl(scheme="rpc")),
        ("result_expires", timedelta(hours=1), 3600.0),
        ("result_exceptions", [KeyError, "shop.errors.SoldOut"], (KeyError, "shop.errors.SoldOut")),
        ("worker_concurrency", "auto", None),
        ("worker_concurrency", 8, 8),
        ("worker_pool", "processes", "prefork"),
        ("worker_redirect_stdouts_level", "info", "INFO"),
        ("worker_queue_weights", {"a": 2}, {"a": 2.0}),
        ("accept_content", ["application/json"], ("json",)),
        ("task_compression", "zlib", "gzip"),
        ("imports", "a, b", ("a", "b")),
        ("imports", None, ()),
        ("timezone", None, "UTC"),
        ("task_queues", {"hipri": {}}, {"hipri": {}}),
    ],
)
def test_value_is_read_as_what_it_means(name: str, given: object, value: object) -> None:
    assert _conf(**{name: given})[name] == value


def test_options_left_out_keep_their_defaults() -> None:
    conf = _conf(task_publish_retry_policy={"max_retries": None}, broker_use_ssl=True)

    policy = conf.settings().task.publish_retry_policy

    assert (policy.max_retries, policy.interval_step, policy.interval_max) == (None, 0.2, 1.0)
    tls = conf.settings().broker.use_ssl
    assert tls is not None
    assert tls.ca_certs is None


def test_options_in_the_url_win_over_the_settings() -> None:
    conf = _conf(broker_url="amqp://mq?heartbeat=7&connection_timeout=2", broker_heartbeat=60)

    assert (conf.broker_heartbeat, conf.broker_connection_timeout) == (7, 2.0)


def test_settings_are_frozen() -> None:
    settings = _conf().settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.worker.concurrency = 3  # type: ignore[misc] # the point of the test


def test_settings_are_read_by_flat_name_too() -> None:
    settings = _conf(task_default_queue="x").settings()

    assert settings.get("task_default_queue") == "x"
    with pytest.raises(KeyError):
        settings.get("default_queue")


def test_table_shows_what_was_set_with_secrets_masked() -> None:
    conf = _conf(
        broker_url=f"amqp://me:{CANARY}@mq",
        broker_use_ssl={"certfile": "c", "keyfile_password": CANARY},
        task_routes={"a.*": {"queue": "hipri"}},
        result_exceptions=(KeyError,),
    )

    table = conf.table()

    assert table["broker_url"] == ["amqp://me:**@mq:5672//"]
    assert table["broker_use_ssl"]["keyfile_password"] == "**"
    assert table["task_routes"] == {"a.*": {"queue": "hipri"}}
    assert table["result_exceptions"] == ["builtins.KeyError"]
    assert set(table) == {"broker_url", "broker_use_ssl", "task_routes", "result_exceptions"}
    assert "broker_url: ['amqp://me:**@mq:5672//']" in conf.humanize().splitlines()
    assert set(conf.as_dict()) == set(FIELDS)
    assert CANARY not in str(conf.as_dict()) + repr(conf) + repr(conf.settings()) + str(conf.settings())


def test_unmasked_dict_configures_another_app_alike() -> None:
    conf = _conf(
        broker_url=f"amqp://me:{CANARY}@mq",
        broker_use_ssl={"keyfile_password": CANARY, "certfile": "c", "keyfile": "k"},
        task_idempotency_store=f"redis://:{CANARY}@cache/1",
    )

    again = _conf(**conf.as_dict(masked=False))

    assert again.settings() == conf.settings()
    assert again.task_idempotency_store.password == Secret(CANARY)
    assert again.broker_use_ssl.keyfile_password == Secret(CANARY)


def test_added_defaults_may_be_computed_when_they_are_needed() -> None:
    conf, calls = _conf(), list[int]()

    def defaults() -> dict[str, object]:
        calls.append(1)
        return {"worker_concurrency": 5}

    conf.add_defaults(defaults)
    assert calls == []

    assert conf.worker_concurrency == 5


def test_only_fault_of_an_unknown_scheme_is_an_unsupported_transport() -> None:
    with pytest.raises(UnsupportedTransport, match="supported: amqp://"):
        _conf(broker_url="sqs://mq").settings()
    with pytest.raises(SettingsError, match="sqs"):
        _conf(broker_url="sqs://mq", worker_concurrency=0).settings()


def test_many_threads_read_and_write() -> None:
    conf, failures = _conf(), list[BaseException]()
    gate = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            gate.wait(10)
            for round_ in range(1, 20):
                conf.update(worker_concurrency=number * 100 + round_)
                assert conf.settings().worker.concurrency is not None
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert failures == []
    assert conf.settings().worker.concurrency == conf.as_dict()["worker_concurrency"]


def test_config_module_that_reads_the_app_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "selfish_config.py").write_text("import builtins\nbuiltins.selfish_conf.task_routes\n")
    monkeypatch.syspath_prepend(tmp_path)
    conf = _conf()
    conf.config_from_object("selfish_config")
    builtins: Any = sys.modules["builtins"]
    monkeypatch.setattr(builtins, "selfish_conf", conf, raising=False)

    with pytest.raises(ConfigurationError, match="a config module must not use the app"):
        conf.settings()


@pytest.mark.parametrize("name", ["beat_schedule", "CELERYBEAT_SCHEDULE"])
def test_a_setting_that_only_celery_has_tells_why_when_it_is_read(name: str) -> None:
    conf = Conf(environ={})

    with pytest.raises(AttributeError, match=f"{name}: not supported yet: there is no scheduler"):
        getattr(conf, name)
    with pytest.raises(KeyError, match=f"{name}: not supported yet: there is no scheduler"):
        conf[name]
    assert name not in conf
