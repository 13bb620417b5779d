"""Every setting can be given as the text of an environment variable."""

from __future__ import annotations

import pytest

from amqp_tasks.settings import BrokerUrl, Conf, PublishRetryPolicy, ResultUrl, TlsOptions
from amqp_tasks.settings._models import FIELDS

TEXTS: dict[str, tuple[str, object]] = {
    "accept_content": ("json,msgpack", ("json", "msgpack")),
    "imports": ("shop.tasks", ("shop.tasks",)),
    "include": ("shop.tasks", ("shop.tasks",)),
    "topology": ("check", "check"),
    "max_message_bytes": ("2000000", 2_000_000),
    "warn_message_bytes": ("1000", 1000),
    "timezone": ("Europe/Vienna", "Europe/Vienna"),
    "enable_utc": ("1", True),
    "broker_url": ("amqp://u:p@h//;amqp://u:p@i//", tuple(map(BrokerUrl.parse, ("amqp://u:p@h//", "amqp://u:p@i//")))),
    "broker_failover_strategy": ("shuffle", "shuffle"),
    "broker_connection_timeout": ("2.5", 2.5),
    "broker_connection_retry": ("0", False),
    "broker_connection_retry_on_startup": ("no", False),
    "broker_connection_max_retries": ("0", 0),
    "broker_heartbeat": ("20", 20),
    "broker_consumer_timeout": ("none", None),
    "broker_login_method": ("EXTERNAL", "EXTERNAL"),
    "broker_use_ssl": ('{"ca_certs": "/ca.pem"}', TlsOptions(ca_certs="/ca.pem")),
    "broker_tls_verify": ("off", False),
    "task_default_queue": ("mails", "mails"),
    "task_default_queue_type": ("classic", "classic"),
    "task_default_exchange": ("mails", "mails"),
    "task_default_exchange_type": ("topic", "topic"),
    "task_default_routing_key": ("mails", "mails"),
    "task_default_priority": ("3", 3),
    "task_inherit_parent_priority": ("true", True),
    "task_queue_max_priority": ("10", 10),
    "task_default_delivery_mode": ("1", 1),
    "task_queues": ("hipri,lopri", ("hipri", "lopri")),
    "task_routes": ('{"a.*": "hipri"}', {"a.*": "hipri"}),
    "task_create_missing_queues": ("false", False),
    "task_create_missing_queue_type": ("classic", "classic"),
    "task_annotations": ('{"*": {"max_retries": 1}}', {"*": {"max_retries": 1}}),
    "task_dead_letter_queues": ("false", False),
    "task_serializer": ("msgpack", "msgpack"),
    "task_compression": ("gzip", "gzip"),
    "task_id_version": ("7", 7),
    "task_ignore_result": ("true", True),
    "task_store_errors_even_if_ignored": ("false", False),
    "task_acks_late": ("false", False),
    "task_acks_on_failure": ("false", False),
    "task_acks_on_timeout": ("false", False),
    "task_time_limit": ("60", 60.0),
    "task_soft_time_limit": ("50", 50.0),
    "task_default_rate_limit": ("10/m", "10/m"),
    "task_track_started": ("true", True),
    "task_publish_timeout": ("10", 10.0),
    "task_publish_retry": ("false", False),
    "task_publish_retry_policy": ('{"max_retries": 1}', PublishRetryPolicy(max_retries=1)),
    "task_publish_window": ("10", 10),
    "task_always_eager": ("true", True),
    "task_eager_propagates": ("true", True),
    "task_store_eager_result": ("true", True),
    "task_crash_limit": ("1", 1),
    "task_delivery_limit": ("10", 10),
    "task_requeue_limit": ("10", 10),
    "task_delayed_index": ("true", True),
    "task_idempotency_store": ("redis://h/1", ResultUrl.parse("redis://h/1")),
    "task_idempotency_expires": ("60", 60.0),
    "task_chord_timeout": ("60", 60.0),
    "task_depth_limit": ("10", 10),
    "task_remote_tracebacks": ("true", True),
    "result_backend": ("disabled", None),
    "result_serializer": ("msgpack", "msgpack"),
    "result_accept_content": ("json,msgpack", ("json", "msgpack")),
    "result_expires": ("60", 60.0),
    "result_persistent": ("false", False),
    "result_compression": ("gzip", "gzip"),
    "result_queue_type": ("quorum", "quorum"),
    "result_extended": ("false", False),
    "result_exceptions": ("builtins.KeyError", ("builtins.KeyError",)),
    "result_cache_max": ("10", 10),
    "worker_concurrency": ("3", 3),
    "worker_pool": ("solo", "solo"),
    "worker_prefetch_multiplier": ("4", 4),
    "worker_prefetch_max": ("64", 64),
    "worker_max_tasks_per_child": ("100", 100),
    "worker_max_memory_per_child": ("200000", 200_000),
    "worker_stop_timeout": ("60", 60.0),
    "worker_cold_stop_timeout": ("1", 1.0),
    "worker_lost_wait": ("1", 1.0),
    "worker_proc_alive_timeout": ("10", 10.0),
    "worker_hung_timeout": ("30", 30.0),
    "worker_journal_max_age": ("3600", 3600.0),
    "worker_log_format": ("%(message)s", "%(message)s"),
    "worker_task_log_format": ("[%(task_id)s] %(message)s", "[%(task_id)s] %(message)s"),
    "worker_log_color": ("false", False),
    "worker_redirect_stdouts": ("false", False),
    "worker_redirect_stdouts_level": ("info", "INFO"),
    "worker_hijack_root_logger": ("true", True),
    "worker_disable_rate_limits": ("true", True),
    "worker_breaker_ratio": ("0.5", 0.5),
    "worker_breaker_runs": ("5", 5),
    "worker_breaker_pause": ("60", 60.0),
    "worker_queue_weights": ('{"hipri": 2}', {"hipri": 2.0}),
}  # fmt: skip
"""The name of each setting, with a text that sets it, if possible to something else than its default, and what it stands for."""


NEEDED = {
    "broker_login_method": {"BROKER_URL": "amqps://h//"},
    "task_queue_max_priority": {"TASK_DEFAULT_QUEUE_TYPE": "classic", "TASK_CREATE_MISSING_QUEUE_TYPE": "classic"},
    "task_serializer": {"ACCEPT_CONTENT": "json,msgpack"},
    "result_serializer": {"ACCEPT_CONTENT": "json,msgpack"},
}  # fmt: skip
"""What else must be set with some."""


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_can_be_given_as_text_in_the_environment(name: str) -> None:
    text, value = TEXTS[name]
    texts = {name.upper(): text} | NEEDED.get(name, {})

    assert Conf(environ={f"AMQP_TASKS_{each}": given for each, given in texts.items()})[name] == value
