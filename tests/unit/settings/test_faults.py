"""Every fault is told, at once, with a remedy, and without secrets."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import SettingsError
from amqp_tasks.settings import Conf

CANARY = "s3cr3t-canary"


def _faults(**settings: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Conf(environ={}, **settings).settings()
    return caught.value.faults


def test_all_faults_are_told_at_once() -> None:
    conf = Conf(environ={"AMQP_TASKS_WORKER_CONCURENCY": "3"})
    conf.config_from_object({"task_serialiser": "json", "worker_concurrency": "many", "beat_schedule": {}})
    conf.add_defaults({"warn_message_bytes": 10, "max_message_bytes": 5})

    with pytest.raises(SettingsError) as caught:
        conf.settings()

    faults = caught.value.faults

    assert len(faults) == 5
    assert sorted(fault.split(":")[0].split(" [")[0] for fault in faults) == [
        "beat_schedule",
        "unknown setting 'task_serialiser', did you mean 'task_serializer'?",
        "unknown setting in the environment",
        "warn_message_bytes=10 is above max_message_bytes=5, so it would never warn; lower it",
        "worker_concurrency",
    ]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            {"worker_concurrency": "many"},
            (
                "worker_concurrency: expected a whole number of at least 1, or 'auto' for the usable CPUs, got 'many'; "
                "remove it for the default None [argument]"
            ),
        ),
        (
            {"worker_prefetch_max": 0},
            "worker_prefetch_max: expected at least 1, got 0; remove it for the default 256 [argument]",
        ),
        (
            {"task_acks_late": "perhaps"},
            "task_acks_late: expected True or False, got 'perhaps'; remove it for the default True [argument]",
        ),
        (
            {"broker_heartbeat": True},
            "broker_heartbeat: expected a whole number, got True; remove it for the default 15 [argument]",
        ),
        (
            {"topology": "redeclare"},
            (
                "topology: expected one of 'declare', 'check', 'none', got 'redeclare'; "
                "remove it for the default 'declare' [argument]"
            ),
        ),
        (
            {"task_publish_retry_policy": {"max_retrys": 3}},
            "task_publish_retry_policy['max_retrys']: unknown option 'max_retrys', did you mean 'max_retries'? [argument]",
        ),
        (
            {"task_publish_timeout": float("inf")},
            "task_publish_timeout: expected a finite number, got inf; remove it for the default 30.0 [argument]",
        ),
        (
            {"worker_queue_weights": {"a": 0}},
            "worker_queue_weights['a']: expected more than 0, got 0; remove it for the default {} [argument]",
        ),
        (
            {"task_default_queue": ""},
            "task_default_queue: expected a text that is not empty, got ''; remove it for the default 'default' [argument]",
        ),
        (
            {"accept_content": []},
            "accept_content: expected a list that is not empty, got []; remove it for the default ('json',) [argument]",
        ),
        (
            {"timezone": "Mars/Olympus"},
            (
                "timezone: expected an IANA time zone such as 'Europe/Berlin', got 'Mars/Olympus'; "
                "on a machine without them install tzdata [argument]"
            ),
        ),
        (
            {"enable_utc": False},
            (
                "enable_utc: expected True, as times in messages are always UTC, got False; "
                "remove it and set timezone for naive times [argument]"
            ),
        ),
        (
            {"task_queues": 3},
            (
                "task_queues: expected a list of queues or a mapping of names to options, got 3; "
                "remove it for the default None [argument]"
            ),
        ),
        (
            {"result_exceptions": [3]},
            (
                "result_exceptions: expected a list of exception classes or of their dotted names, got [3]; "
                "remove it for the default () [argument]"
            ),
        ),
        (
            {"worker_max_tasks_per_child": "x" * 200},
            (
                f"worker_max_tasks_per_child: expected a whole number, got '{'x' * 78}…; "
                "remove it for the default None [argument]"
            ),
        ),
        (
            {"CELERYD_CONCURRENCY": 0},
            (
                "worker_concurrency: expected at least 1, got 0; remove it for the default None "
                "[argument, written as CELERYD_CONCURRENCY]"
            ),
        ),
        (
            {"xyzzy": 1},
            "unknown setting 'xyzzy'; remove it, or see the reference of settings for all names [argument]",
        ),
        (
            {"CELERY_CONCURRENCY": 4},
            (
                "unknown setting 'CELERY_CONCURRENCY', did you mean 'CELERYD_CONCURRENCY' (today 'worker_concurrency')? "
                "[argument]"
            ),
        ),
        (
            {"CELERYBEAT_SCHEDULE": {}},
            (
                "beat_schedule (written as CELERYBEAT_SCHEDULE): not supported yet: there is no scheduler; remove it "
                "[argument]"
            ),
        ),
        (
            {"worker_detect_quorum_queues": True},
            "worker_detect_quorum_queues: not needed, because quorum queues are the default [argument]",
        ),
        ({"task_protocol": 1}, "task_protocol: only protocol 2 exists: set it to 2 or remove it [argument]"),
        (
            {"broker_url": "amqp://mq:0"},
            "broker_url: broker URL: expected a port from 1 to 65535 in 'amqp://mq:0', got 0 [argument]",
        ),
        (
            {"worker_pool": "gevent"},
            (
                "worker_pool: expected one of 'prefork', 'threads', 'solo', got 'gevent'; "
                "there is no greenlet pool: use 'threads' instead of 'gevent' [argument]"
            ),
        ),
    ],
)
def test_fault_says_what_was_expected_what_came_and_what_to_do(
    settings: dict[str, object], fault: str
) -> None:
    assert _faults(**settings) == (fault,)


@pytest.mark.parametrize("name", ["pickle", "binary", "xml", "application/x-python-serialize", "bson", 3])
@pytest.mark.parametrize("setting", ["task_serializer", "result_serializer", "accept_content"])
def test_serializers_that_do_not_exist_name_those_that_do(name: object, setting: str) -> None:
    faults = _faults(**{setting: [name] if setting == "accept_content" else name})

    assert len(faults) == 1
    assert "'json', 'msgpack', 'yaml'" in faults[0]


def test_pickle_is_refused_by_design_and_says_so() -> None:
    assert "pickle is refused by design, as reading it runs code" in _faults(task_serializer="pickle")[0]
    assert "some texts use it for pickle" in _faults(task_serializer="binary")[0]
    assert "there is no serializer 'xml'" in _faults(task_serializer="xml")[0]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"broker_login_method": "EXTERNAL"}, "needs TLS"),
        ({"broker_use_ssl": {"keyfile": "k"}}, "a keyfile without a certfile"),
        ({"broker_url": "memory://;amqp://mq"}, "mixes memory:// with real brokers"),
        ({"broker_url": "amqp://a?heartbeat=3;amqp://b"}, "different heartbeat= options"),
        (
            {"task_queue_max_priority": 10, "task_create_missing_queue_type": "classic"},
            "set task_default_queue_type='classic'",
        ),
        (
            {"task_queue_max_priority": 10, "task_default_queue_type": "classic"},
            "set task_create_missing_queue_type='classic'",
        ),
        (
            {
                "task_queue_max_priority": 3,
                "task_default_priority": 4,
                "task_default_queue_type": "classic",
                "task_create_missing_queue_type": "classic",
            },
            "lower the one or raise the other",
        ),
        ({"task_serializer": "msgpack"}, "task_serializer='msgpack' is not in accept_content=('json',)"),
        ({"result_serializer": "yaml"}, "result_serializer='yaml' is not in accept_content=('json',)"),
        (
            {"result_accept_content": ["msgpack"]},
            "result_serializer='json' is not in result_accept_content=('msgpack',)",
        ),
        ({"warn_message_bytes": 2, "max_message_bytes": 1}, "would never warn"),
        (
            {"task_time_limit": 5, "task_soft_time_limit": 5},
            "task_soft_time_limit=5 is not below task_time_limit=5",
        ),
        ({"worker_pool": "solo", "worker_concurrency": 2}, "runs one task at a time"),
    ],
)
def test_settings_that_do_not_go_together_are_one_fault(settings: dict[str, object], fault: str) -> None:
    faults = _faults(**settings)

    assert len(faults) == 1
    assert fault in faults[0]
    assert faults[0].endswith("]")


def test_wrong_value_is_not_told_again_as_a_clash() -> None:
    faults = _faults(worker_pool="solo", worker_concurrency=-2)

    assert len(faults) == 1


def test_old_and_new_names_in_one_call_are_listed() -> None:
    with pytest.raises(SettingsError) as caught:
        Conf(environ={}, BROKER_URL="amqp://", CELERYD_CONCURRENCY=2, task_default_queue="x")

    assert caught.value.faults == (
        (
            "old and new names are mixed: BROKER_URL, CELERYD_CONCURRENCY with task_default_queue; "
            "use one style, best the new"
        ),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"broker_url": f"amqp://me:{CANARY}@mq:x"},
        {"broker_url": f"amqp//me:{CANARY}@mq"},
        {"broker_url": f"sqs://me:{CANARY}@mq", "worker_concurrency": 0},
        {"broker_url": [f"amqp://me:{CANARY}@mq", 3]},
        {"broker_url": {"url": f"amqp://me:{CANARY}@mq"}},
        {"broker_url": f"amqp://me:{CANARY}@mq;memory://"},
        {"result_backend": f"redis://:{CANARY}@cache/0"},
        {"result_backend": [f"redis://:{CANARY}@cache/0"]},
        {"result_backend": f"redis:/:{CANARY}@cache/0"},
        {"task_idempotency_store": f"redis:/:{CANARY}@cache/0"},
        {"task_idempotency_store": f"redis:{CANARY}"},
        {"task_idempotency_store": ("redis", "cache", CANARY)},
        {"task_idempotency_store": {"scheme": "redis", "password": CANARY}},
        {"security_signing_keys": {"k": CANARY}},
        {"security_signing_keys": CANARY},
        {"security_signing_keys": {CANARY: {"secret": CANARY}}},
        {"broker_heartbeat": f"amqp://me:{CANARY}@mq"},
        {"broker_use_ssl": CANARY},
        {"broker_use_ssl": {"keyfile_password": [CANARY]}},
        {"broker_use_ssl": {"keyfile_passwort": CANARY}},
        {"task_routes": 3, "redis_password": CANARY},
        {"broker_transport_options": {"password": CANARY}},
        {"worker_queue_weights": {"a": f"password={CANARY}"}},
        {"brokerurl": f"amqp://me:{CANARY}@mq"},
    ],
)
def test_no_fault_shows_a_secret_not_even_with_locals(settings: dict[str, object]) -> None:
    conf = Conf(environ={})
    conf.config_from_object(settings)

    with pytest.raises(SettingsError) as caught:
        conf.settings()

    shown = _shown(caught)
    assert "gathered = " in shown, "the locals are shown at all"
    assert CANARY not in shown


def _set_item(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        Conf(environ={})[name] = value


def _set_attribute(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        setattr(Conf(environ={}), name, value)


@pytest.mark.parametrize(
    "write",
    [
        lambda settings: App(broker=settings["broker_url"]),
        lambda settings: App(**settings),
        lambda settings: Conf(environ={}, **settings),
        lambda settings: Conf(environ={}).update(settings),
        lambda settings: Conf(environ={}).update(**settings),
        _set_item,
        _set_attribute,
    ],
)
def test_refused_write_shows_no_secret_not_even_with_locals(
    write: Callable[[dict[str, Any]], object],
) -> None:
    with pytest.raises(SettingsError) as caught:
        write({"broker_url": f"amqp://me:{CANARY}@mq:x"})

    shown = _shown(caught)
    assert "outcome = " in shown, "the locals are shown at all"
    assert CANARY not in shown


def _shown(caught: pytest.ExceptionInfo[SettingsError]) -> str:
    """The traceback with locals, without the frames of the tests, which hold the settings by design."""
    frames = caught.tb
    while frames.tb_frame.f_code.co_filename == __file__ and frames.tb_next is not None:
        frames = frames.tb_next
    told = traceback.TracebackException(caught.type, caught.value, frames, capture_locals=True)
    return "".join(told.format())


def test_store_that_does_not_exist_yet_is_named_with_its_password_masked() -> None:
    fault = _faults(result_backend=f"redis://:{CANARY}@cache:6379/1")[0]

    assert "there is no store for redis://:**@cache:6379/1 yet" in fault
    assert "expected 'rpc://', or None or 'disabled' for no results" in fault


def test_a_store_that_is_no_url_says_what_is_one() -> None:
    (typo,) = _faults(task_idempotency_store=f"redis:/:{CANARY}@cache/0")
    (parts,) = _faults(task_idempotency_store=("redis", "cache"))

    assert "expected scheme://user:password@host:port/db, got text without '://'" in typo
    assert (
        "expected a URL such as 'redis://:password@host:6379/0', or None for no store, got a value" in parts
    )


def test_what_is_always_so_may_be_asked_for() -> None:
    conf = Conf(
        environ={},
        task_protocol=2,
        worker_enable_soft_shutdown_on_idle=True,
        broker_transport_options={"confirm_publish": True},
    )

    assert conf.settings() == Conf(environ={}).settings()


@pytest.mark.parametrize("name", ["worker_log_format", "worker_task_log_format"])
@pytest.mark.parametrize(
    "text",
    [
        "{asctime} {message}",
        "hello",
        "%(message)",
        "%(message)s %",
        "%(message)s %d",
        "%(message)d",
    ],
)
def test_a_format_that_cannot_write_a_log_line_is_a_fault(name: str, text: str) -> None:
    (fault,) = _faults(**{name: text})

    assert fault.startswith(f"{name}: expected a format such as '%(levelname)s: %(message)s', got {text!r}; ")


@pytest.mark.parametrize("name", ["worker_log_format", "worker_task_log_format"])
def test_a_format_may_use_fields_that_a_filter_adds(name: str) -> None:
    Conf(environ={}, **{name: "%(otelTraceID)s %(task_id)s %(message)s"}).settings()


def test_a_format_may_use_every_field_of_a_log_record() -> None:
    text = (
        "%(asctime)s %(created)f %(filename)s %(funcName)s %(levelname)s %(levelno)d %(lineno)d %(module)s %(msecs)03d "
        "%(name)s %(pathname)s %(process)d %(processName)s %(relativeCreated)d %(thread)d %(threadName)s %%"
    )

    Conf(environ={}, worker_log_format=text, worker_task_log_format=text).settings()
