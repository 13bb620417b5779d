"""Config objects of every kind, old names, namespaces and the environment."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp_tasks.errors import SettingsError
from amqp_tasks.settings import Conf

CANARY = "s3cr3t-canary"


def _conf(source: object, namespace: str | None = None, environ: dict[str, str] | None = None) -> Conf:
    conf = Conf(environ=environ or {})
    conf.config_from_object(source, namespace=namespace)
    return conf


def _faults(conf: Conf) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        conf.settings()
    return caught.value.faults


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_module_is_read_by_name_and_only_when_needed(here: Path) -> None:
    (here / "celeryconfig.py").write_text("broker_url = 'amqp://mq'\ntask_default_queue = 'q'\n")
    conf = _conf("celeryconfig")
    assert "celeryconfig" not in sys.modules

    assert (conf.broker_url[0].host, conf.task_default_queue) == ("mq", "q")
    assert str(conf.origin("broker_url")) == "config celeryconfig"


def test_force_reads_at_once(here: Path) -> None:
    (here / "forced_config.py").write_text("task_serialzer = 'json'\n")

    with pytest.raises(SettingsError, match="did you mean 'task_serializer'"):
        Conf(environ={}).config_from_object("forced_config", force=True)


def test_imports_and_helpers_of_a_config_module_are_not_settings(here: Path) -> None:
    (here / "full_config.py").write_text(
        "from __future__ import annotations\n"
        "import os\nfrom datetime import timedelta\nfrom os.path import join\n"
        "_host = 'mq'\nDEBUG = True\n"
        "def helper(): ...\n"
        "class other: ...\n"
        "def task_routes(name, args, kwargs, options, task=None, **kw): return {'queue': 'x'}\n"
        "result_expires = timedelta(minutes=1)\n"
    )
    conf = _conf("full_config")

    assert conf.result_expires == 60.0
    assert conf.task_routes("a", (), {}, {}) == {"queue": "x"}


def test_what_typing_has_and_cached_functions_are_not_settings(here: Path) -> None:
    (here / "typed_config.py").write_text(
        "import functools\nfrom typing import Any, Dict, Optional, TypeVar, Union\n"
        "T = TypeVar('T')\nName = Optional[str]\n"
        "@functools.lru_cache\ndef host(): ...\n"
        "@functools.cache\ndef task_routes(name, args, kwargs, options, task=None, **kw): return {'queue': 'x'}\n"
        "task_default_queue = 'q'\n"
    )
    conf = _conf("typed_config")

    assert conf.task_default_queue == "q"
    assert conf.task_routes("a", (), (), None) == {"queue": "x"}


def test_unknown_name_in_a_module_gets_a_hint(here: Path) -> None:
    (here / "typo_config.py").write_text("prefetch_mulitplier = 4\nqwertz = 1\n")

    assert _faults(_conf("typo_config")) == (
        "unknown setting 'prefetch_mulitplier', did you mean 'worker_prefetch_multiplier'? [config typo_config]",
        "unknown setting 'qwertz'; if it is not meant as one, begin its name with '_' [config typo_config]",
    )


def test_attribute_of_a_module_is_named_with_a_colon_or_a_dot(here: Path) -> None:
    package = here / "shopconf"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "env.py").write_text(
        "class Production:\n    task_default_queue = 'prod'\n    class inner: pass\n"
    )

    assert _conf("shopconf.env:Production").task_default_queue == "prod"
    assert _conf("shopconf.env.Production").task_default_queue == "prod"
    assert _faults(_conf("shopconf.env:Staging")) == (
        "config 'shopconf.env:Staging': module 'shopconf.env' has no attribute 'Staging'",
    )


def test_missing_module_is_named() -> None:
    fault = _faults(_conf("no_such_celeryconfig"))[0]

    assert fault.startswith("config 'no_such_celeryconfig': there is no module 'no_such_celeryconfig'")


def test_import_error_inside_the_module_is_shown_with_its_cause(here: Path) -> None:
    (here / "broken_config.py").write_text("x = 1\nimport no_such_thing_here\n")

    with pytest.raises(SettingsError) as caught:
        _conf("broken_config").settings()

    assert caught.value.faults == (
        (
            "config 'broken_config': importing it raised ModuleNotFoundError: No module named 'no_such_thing_here' "
            "(broken_config.py, line 2)"
        ),
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_error_inside_the_module_is_masked_and_told_with_other_faults(here: Path) -> None:
    (here / "raising_config.py").write_text(f"raise RuntimeError('cannot reach amqp://me:{CANARY}@mq')\n")
    conf = _conf("raising_config")
    conf.config_from_object({"worker_concurrency": 0})

    faults = _faults(conf)

    assert len(faults) == 2
    assert any(
        "RuntimeError: cannot reach amqp://me:**@mq (raising_config.py, line 1)" in fault for fault in faults
    )


def test_config_is_read_from_module_class_and_instance() -> None:
    module = types.ModuleType("conf_module")
    module.task_default_queue = "m"  # type: ignore[attr-defined] # that is how a module is filled

    class Base:
        worker_concurrency = 2

    class Config(Base):
        task_default_queue = "c"
        CASE_MATTERS = 1

        def __init__(self) -> None:
            self.task_default_queue = "i"

        def method(self) -> None: ...

        @property
        def lazily(self) -> int:
            raise AssertionError("must not be read")

    assert _conf(module).task_default_queue == "m"
    assert (_conf(Config).task_default_queue, _conf(Config).worker_concurrency) == ("c", 2)
    assert (_conf(Config()).task_default_queue, _conf(Config()).worker_concurrency) == ("i", 2)


def test_later_config_object_wins_setting_by_setting() -> None:
    conf = _conf({"task_default_queue": "a", "worker_concurrency": 2})
    conf.config_from_object({"task_default_queue": "b"})

    assert (conf.task_default_queue, conf.worker_concurrency) == ("b", 2)


@pytest.mark.parametrize(
    ("old", "value", "name", "read"),
    [
        ("BROKER_URL", "amqp://mq", "broker_url", None),
        ("CELERY_RESULT_BACKEND", "rpc://", "result_backend", None),
        ("CELERYD_CONCURRENCY", 3, "worker_concurrency", 3),
        ("CELERY_TASK_SERIALIZER", "json", "task_serializer", "json"),
        ("CELERY_RESULT_SERIALIZER", "json", "result_serializer", "json"),
        ("CELERY_ACCEPT_CONTENT", ["json"], "accept_content", ("json",)),
        ("CELERY_TIMEZONE", "Asia/Shanghai", "timezone", "Asia/Shanghai"),
        ("CELERY_ENABLE_UTC", True, "enable_utc", True),
        ("CELERY_TASK_RESULT_EXPIRES", 60, "result_expires", 60.0),
        ("CELERYD_MAX_TASKS_PER_CHILD", 9, "worker_max_tasks_per_child", 9),
        ("CELERYD_PREFETCH_MULTIPLIER", 1, "worker_prefetch_multiplier", 1),
        ("CELERY_ROUTES", {"a": {"queue": "b"}}, "task_routes", {"a": {"queue": "b"}}),
        ("CELERY_IMPORTS", ("a",), "imports", ("a",)),
        ("CELERY_ALWAYS_EAGER", True, "task_always_eager", True),
    ],
)
def test_old_name_in_a_settings_module_is_an_alias(old: str, value: object, name: str, read: object) -> None:
    module = types.ModuleType("django_settings")
    module.INSTALLED_APPS = []  # type: ignore[attr-defined] # that is how a module is filled
    setattr(module, old, value)
    conf = _conf(module)

    assert str(conf.origin(name)) == "config django_settings"
    assert conf[name] == read or read is None


def test_old_name_that_never_was_gets_a_hint_among_djangos_own() -> None:
    module = types.ModuleType("django_settings")
    module.SECRET_KEY = CANARY  # type: ignore[attr-defined] # that is how a module is filled
    module.CELERY_CONCURRENCY = 3  # type: ignore[attr-defined]

    assert _faults(_conf(module)) == (
        (
            "unknown setting 'CELERY_CONCURRENCY', did you mean 'CELERYD_CONCURRENCY' (today 'worker_concurrency')? "
            "[config django_settings]"
        ),
    )


@pytest.mark.parametrize("prefix", ["CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_", ""])
def test_upper_case_names_are_others_unless_they_begin_as_celerys_did(prefix: str) -> None:
    """As `docs/how-to/configure.md` says."""
    holder = type("Holder", (), {f"{prefix}NOBODYS": 3})

    refused = _faults(_conf({f"{prefix}NOBODYS": 3}))
    assert len(refused) == 1
    assert f"{prefix}NOBODYS" in refused[0]
    if prefix:
        assert f"{prefix}NOBODYS" in _faults(_conf(holder))[0]
    else:
        _conf(holder).settings()


def test_mixed_names_are_one_fault_that_lists_the_conflict() -> None:
    faults = _faults(_conf({"BROKER_URL": "amqp://", "task_serializer": "json"}))

    assert faults == (
        (
            "old and new names are mixed: BROKER_URL with task_serializer; use one style, best the new one: "
            "BROKER_URL → broker_url [config dict]"
        ),
    )


def test_two_names_of_one_setting_are_a_fault() -> None:
    faults = _faults(_conf({"worker_stop_timeout": 1, "worker_soft_shutdown_timeout": 2}))

    assert faults == (
        "worker_stop_timeout and worker_soft_shutdown_timeout are the same setting; keep one of them [config dict]",
    )


def test_namespace_reads_only_its_own_names() -> None:
    module = types.ModuleType("django_settings")
    vars(module).update(
        CELERY_TASK_ROUTES={"a": {"queue": "b"}},
        CELERY_BROKER_URL="amqp://mq",
        CELERY_WORKER_CONCURRENCY=2,
        TIME_ZONE="UTC",
        lower_case=1,
    )
    conf = _conf(module, "CELERY")

    assert (conf.task_routes, conf.broker_url[0].host, conf.worker_concurrency) == (
        {"a": {"queue": "b"}},
        "mq",
        2,
    )


def test_wrong_names_in_a_namespace_say_how_to_write_them() -> None:
    names = {"CELERY_TASK_ROTUES": {}, "CELERYD_CONCURRENCY": 2, "CELERY_TASK_RESULT_EXPIRES": 3}

    assert _faults(_conf(names, "CELERY")) == (
        "unknown setting 'CELERY_TASK_ROTUES', did you mean 'CELERY_TASK_ROUTES'? [config dict]",
        "CELERYD_CONCURRENCY is an old name; with namespace='CELERY' write CELERY_WORKER_CONCURRENCY [config dict]",
        "CELERY_TASK_RESULT_EXPIRES is an old name; with namespace='CELERY' write CELERY_RESULT_EXPIRES [config dict]",
    )


def test_settings_object_that_makes_up_attributes_is_read_by_its_upper_case_names() -> None:
    class Lazy:
        """As Django's: everything by `__getattr__`, listed by `__dir__`."""

        @property
        def configured(self) -> bool:
            return True

        def __dir__(self) -> list[str]:
            return ["configured", "default_settings", "CELERY_TASK_DEFAULT_QUEUE", "SECRET_KEY"]

        def __getattr__(self, name: str) -> object:
            return {"CELERY_TASK_DEFAULT_QUEUE": "lazy", "SECRET_KEY": CANARY, "default_settings": 1}[name]

    assert _conf(Lazy(), "CELERY").task_default_queue == "lazy"
    assert _faults(_conf(Lazy())) == (
        (
            "CELERY_TASK_DEFAULT_QUEUE is a name of Django style; pass namespace='CELERY' to config_from_object, "
            "or write task_default_queue [config Lazy]"
        ),
    )


def test_constants_of_others_that_celery_once_knew_are_left_alone() -> None:
    module = types.ModuleType("django_settings")
    vars(module).update(
        S3_BUCKET="mine", DATABASE_TABLE_SCHEMAS={}, TOPOLOGY=3, CELERY_TASK_DEFAULT_QUEUE="q"
    )

    assert _conf(module, "CELERY").task_default_queue == "q"


def test_names_of_our_own_have_an_old_style_too() -> None:
    assert _conf({"CELERY_TOPOLOGY": "check", "CELERYD_PREFETCH_MAX": 9}).topology == "check"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("WORKER_CONCURRENCY", "3", 3),
        ("WORKER_CONCURRENCY", "auto", None),
        ("WORKER_MAX_TASKS_PER_CHILD", "null", None),
        ("TASK_ACKS_LATE", "false", False),
        ("TASK_ACKS_LATE", "1", True),
        ("RESULT_EXPIRES", " 2.5 ", 2.5),
        ("TASK_DEFAULT_QUEUE", "12", "12"),
        ("TASK_DEFAULT_QUEUE", '"none"', "none"),
        ("TOPOLOGY", "none", "none"),
        ("TASK_DEFAULT_DELIVERY_MODE", "1", 1),
        ("IMPORTS", "a,b", ("a", "b")),
        ("IMPORTS", '["a", "b"]', ("a", "b")),
        ("ACCEPT_CONTENT", "json, msgpack", ("json", "msgpack")),
        ("TASK_QUEUES", "hipri,lopri", ("hipri", "lopri")),
        ("TASK_ROUTES", '{"a.*": {"queue": "b"}}', {"a.*": {"queue": "b"}}),
        ("TASK_ROUTES", "shop.routes.route", "shop.routes.route"),
        ("RESULT_BACKEND", "disabled", None),
        ("BROKER_USE_SSL", "false", None),
        ("WORKER_QUEUE_WEIGHTS", '{"a": 2}', {"a": 2.0}),
        ("WORKER_SOFT_SHUTDOWN_TIMEOUT", "9", None),
    ],
)
def test_environment_value_is_read_as_its_setting_needs(name: str, text: str, value: object) -> None:
    conf = Conf(environ={f"AMQP_TASKS_{name}": text})
    flat_name = {"worker_soft_shutdown_timeout": "worker_stop_timeout"}.get(name.lower(), name.lower())

    assert conf[flat_name] == (9.0 if flat_name == "worker_stop_timeout" else value)
    assert str(conf.origin(flat_name)) == f"environment AMQP_TASKS_{name}"


def test_tls_is_switched_on_by_the_environment() -> None:
    conf = Conf(environ={"AMQP_TASKS_BROKER_USE_SSL": "true"})

    assert conf.settings().broker.use_ssl is not None


def test_unknown_variable_is_a_fault_with_a_hint_but_control_variables_are_not() -> None:
    environ = {
        "AMQP_TASKS_APP": "shop",
        "AMQP_TASKS_TEST_BROKER_URL": "amqp://mq",
        "AMQP_TASKS_BROKER_ULR": f"amqp://me:{CANARY}@mq",
        "AMQP_TASKS_BEAT_SCHEDULE": "{}",
        "AMQP_TASKS_ZZZZZZZZ": "1",
        "AMQP_TASKSX": "1",
        "PATH": "",
    }

    assert _faults(Conf(environ=environ)) == (
        "AMQP_TASKS_BEAT_SCHEDULE: not supported yet: there is no scheduler; remove it",
        "unknown setting in the environment: AMQP_TASKS_BROKER_ULR, did you mean AMQP_TASKS_BROKER_URL?",
        "unknown setting in the environment: AMQP_TASKS_ZZZZZZZZ; unset it",
    )


def test_wrong_value_in_the_environment_names_the_variable() -> None:
    assert _faults(Conf(environ={"AMQP_TASKS_WORKER_PREFETCH_MAX": "[1"})) == (
        (
            "worker_prefetch_max: expected a whole number, got '[1'; remove it for the default 256 "
            "[environment AMQP_TASKS_WORKER_PREFETCH_MAX]"
        ),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TASK_QUEUES", "['ra_a','ra_b']"),
        ("TASK_QUEUES", '["a"'),
        ("RESULT_EXCEPTIONS", "['builtins.KeyError']"),
        ("TASK_ROUTES", "{'plain.*': 'ra_low'}"),
        ("WORKER_QUEUE_WEIGHTS", "{'a': 1}"),
        ("BROKER_USE_SSL", f"{{'ca_certs': '{CANARY}'}}"),
        ("TASK_PUBLISH_RETRY_POLICY", "{max_retries: 1}"),
        ("IMPORTS", "[" * 100_000),
    ],
)
def test_a_list_or_mapping_in_the_environment_that_is_not_json_is_a_fault(name: str, text: str) -> None:
    (fault,) = _faults(Conf(environ={f"AMQP_TASKS_{name}": text}))

    assert fault.startswith(f"{name.lower()}: expected JSON, as the text begins with {text[0]!r}")
    assert fault.endswith(f"[environment AMQP_TASKS_{name}]")
    assert CANARY not in fault


def test_a_text_in_the_environment_may_begin_with_a_bracket() -> None:
    conf = Conf(environ={"AMQP_TASKS_WORKER_LOG_FORMAT": "[%(message)s"})

    assert conf.worker_log_format == "[%(message)s"


def test_environment_of_very_many_brackets_is_a_wrong_value_too() -> None:
    (fault,) = _faults(Conf(environ={"AMQP_TASKS_WORKER_PREFETCH_MAX": "[" * 100_000}))

    assert fault.startswith("worker_prefetch_max: expected a whole number, got '[[[[")


def test_environment_of_the_process_is_read_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    conf = Conf()
    monkeypatch.setenv("AMQP_TASKS_WORKER_CONCURRENCY", "7")

    assert conf.worker_concurrency == 7
