"""Names of settings: Celery's old upper-case ones, and those of Celery's that do not exist here.

Plain tables. A test compares the old names with Celery's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

__all__ = ("ALIASES", "UNSUPPORTED", "did_you_mean", "old_name", "old_names")

ALIASES = {"worker_soft_shutdown_timeout": "worker_stop_timeout"}
"""Further names in today's style, each for one of ours."""

_IRREGULAR = {
    "CELERY_ACCEPT_CONTENT": "accept_content",
    "CELERY_DISABLE_RATE_LIMITS": "worker_disable_rate_limits",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERY_ENABLE_REMOTE_CONTROL": "worker_enable_remote_control",
    "CELERY_ENABLE_UTC": "enable_utc",
    "CELERY_IMPORTS": "imports",
    "CELERY_INCLUDE": "include",
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_REDIRECT_STDOUTS": "worker_redirect_stdouts",
    "CELERY_REDIRECT_STDOUTS_LEVEL": "worker_redirect_stdouts_level",
    "CELERY_RESULT_DBURI": "database_url",
    "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS": "database_short_lived_sessions",
    "CELERY_RESULT_DB_TABLENAMES": "database_table_names",
    "CELERY_RESULT_ENGINE_OPTIONS": "database_engine_options",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERY_TASK_PROTOCOL": "task_protocol",
    "CELERY_TASK_PUBLISH_RETRY": "task_publish_retry",
    "CELERY_TASK_PUBLISH_RETRY_POLICY": "task_publish_retry_policy",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_TASK_SERIALIZER": "task_serializer",
    "CELERY_TIMEZONE": "timezone",
    "RESULT_ACCEPT_CONTENT": "result_accept_content",
    "CELERY_WORKER_DIRECT": "worker_direct",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERYD_WORKER_LOST_WAIT": "worker_lost_wait",
}
_FURTHER = {"ENABLE_UTC": "enable_utc"}
"""Second old names."""
_OURS = ("topology", "max_message_bytes", "warn_message_bytes")
"""Without a prefix of Celery's; bare in upper case they would be anybody's constants."""
_OLD_PREFIXES = {
    "task_": "CELERY_",
    "worker_": "CELERYD_",
    "beat_": "CELERYBEAT_",
    "result_": "CELERY_RESULT_",
    "cache_": "CELERY_CACHE_",
    "couchbase_": "CELERY_COUCHBASE_",
    "arangodb_": "CELERY_ARANGODB_",
    "mongodb_": "CELERY_MONGODB_",
    "event_": "CELERY_EVENT_",
    "redis_": "CELERY_REDIS_",
    "elasticsearch_": "CELERY_ELASTICSEARCH_",
    "security_": "CELERY_SECURITY_",
}
"""What Celery put in front of its old names; everything else is just the name in upper case."""

_NO_SCHEDULER = "not supported yet: there is no scheduler; remove it"
_NO_STORE = "not supported yet: results come back by 'rpc://' only; remove it"
_NO_EVENTS = "not supported yet: there are no events but those of progress, which need no setting; remove it"
_NO_CONTROL = (
    "not supported yet: workers answer no questions, and hear app.control through the journal; remove it"
)
_OWN_TIMES = "not supported yet: times are as logging writes them; for others set up the root logger yourself"
_INTERNAL = "not needed, because it swaps an inner part of Celery's worker; remove it"
_ONE_URL = "not needed: write it into broker_url, as in amqp://user:password@host:5672/vhost"

_UNSUPPORTED_GROUPS: tuple[tuple[str, str], ...] = (
    (
        _NO_SCHEDULER,
        (
            "beat_enable_remote_control beat_remote_control_max_tick_age beat_max_loop_interval beat_schedule beat_scheduler"
            " beat_schedule_filename beat_sync_every beat_cron_starting_deadline"
        ),
    ),
    (
        _NO_STORE,
        (
            "cache_backend cache_backend_options cassandra_entry_ttl cassandra_keyspace cassandra_port"
            " cassandra_read_consistency cassandra_servers cassandra_bundle_path cassandra_table cassandra_write_consistency"
            " cassandra_auth_provider cassandra_auth_kwargs cassandra_options s3_access_key_id s3_secret_access_key s3_bucket"
            " s3_base_path s3_endpoint_url s3_region azureblockblob_container_name azureblockblob_retry_initial_backoff_sec"
            " azureblockblob_retry_increment_base azureblockblob_retry_max_attempts azureblockblob_base_path"
            " azureblockblob_connection_timeout azureblockblob_read_timeout gcs_bucket gcs_project gcs_base_path gcs_ttl"
            " couchbase_backend_settings arangodb_backend_settings mongodb_backend_settings cosmosdbsql_database_name"
            " cosmosdbsql_collection_name cosmosdbsql_consistency_level cosmosdbsql_max_retry_attempts"
            " cosmosdbsql_max_retry_wait_time redis_backend_use_ssl redis_db redis_host redis_max_connections redis_username"
            " redis_password redis_port redis_socket_timeout redis_socket_connect_timeout redis_retry_on_timeout"
            " redis_socket_keepalive elasticsearch_retry_on_timeout elasticsearch_max_retries elasticsearch_timeout"
            " elasticsearch_save_meta_as_text database_url database_engine_options database_engine_callback"
            " database_short_lived_sessions database_table_schemas database_table_names database_create_tables_at_setup"
            " result_backend_transport_options result_backend_max_sleep_between_retries_ms result_backend_max_retries"
            " result_backend_base_sleep_between_retries_ms result_backend_always_retry"
        ),
    ),
    (
        _NO_EVENTS,
        (
            "event_queue_expires event_queue_ttl event_queue_prefix event_queue_exclusive event_queue_durable"
            " event_serializer event_exchange task_send_sent_event worker_send_task_events"
        ),
    ),
    (
        _NO_CONTROL,
        (
            "control_queue_ttl control_queue_expires control_queue_exclusive control_queue_durable control_exchange"
            " worker_pool_restarts"
        ),
    ),
    (
        "not needed, because messages are signed by secrets that callers and workers share: set security_signing_keys",
        "security_certificate security_cert_store security_key security_key_password security_digest",
    ),
    (_ONE_URL, "broker_host broker_port broker_user broker_password broker_vhost"),
    (
        _INTERNAL,
        "worker_agent worker_autoscaler worker_consumer worker_timer worker_timer_precision worker_pool_putlocks",
    ),
    (
        "not needed, because the outcomes of a chord come together in a queue of its own; remove it",
        "result_chord_expires result_chord_retry_interval result_chord_join_timeout",
    ),
    (
        (
            "not needed, because messages are prefetched by how long tasks take: use worker_prefetch_multiplier or "
            "worker_prefetch_max"
        ),
        "worker_disable_prefetch worker_enable_prefetch_count_reduction",
    ),
    (
        "not needed, because the old result exchange is no more: 'rpc://' replies to a queue",
        "result_exchange result_exchange_type",
    ),
    (
        "not needed, because a task whose process dies runs again up to task_crash_limit times: set that",
        "task_reject_on_worker_lost task_retry_on_worker_lost",
    ),
)
UNSUPPORTED: Mapping[str, str] = {
    **{name: reason for reason, names in _UNSUPPORTED_GROUPS for name in names.split()},
    "broker_transport": "not needed: it is the scheme of broker_url",
    "broker_read_url": "not supported yet: use broker_url for both directions",
    "broker_write_url": "not supported yet: use broker_url for both directions",
    "broker_transport_options": (
        "not needed, because RabbitMQ's options are settings of their own; only confirm_publish is accepted, and ignored, "
        "as confirms are always on"
    ),
    "broker_channel_error_retry": "not needed, because channel errors are always handled channel by channel",
    "broker_heartbeat_checkrate": "not needed, because the I/O thread checks by itself: set broker_heartbeat",
    "broker_native_delayed_delivery_queue_type": "not needed, because delayed tasks always wait in quorum queues; remove it",
    "broker_pool_limit": "not needed, because a process has one connection to publish and one for replies",
    "broker_pool_acquire_timeout": "not needed, because there is no pool to wait for: set task_publish_timeout",
    "result_failure_expires": "not supported yet: failures stay as long as results: set result_expires",
    "task_acks_on_failure_or_timeout": "not needed: set task_acks_on_failure and task_acks_on_timeout",
    "task_allow_error_cb_on_chord_header": (
        "not supported yet: errbacks of a chord are those of its body; give the tasks of its header their own with on_error()"
    ),
    "task_create_missing_queue_exchange_type": "not needed, because created queues are reached by the default exchange",
    "task_protocol": "only protocol 2 exists: set it to 2 or remove it",
    "task_repr_maxlevels": "not needed, because argument texts in messages are always cut",
    "worker_cancel_long_running_tasks_on_connection_loss": "not supported yet: a running task goes on; remove it",
    "worker_deduplicate_successful_tasks": "not supported yet: make tasks idempotent; remove it",
    "worker_detect_quorum_queues": "not needed, because quorum queues are the default",
    "worker_direct": "not supported yet: use a queue of its own with -Q",
    "worker_enable_soft_shutdown_on_idle": "not needed, because an idle worker always hands back what it holds for later: True and False are accepted, and ignored",
    "worker_eta_task_limit": "not needed, because workers hold no delayed tasks",
    "worker_log_datefmt": _OWN_TIMES,
    "worker_state_db": "not needed, because what is revoked stands in the journal, which outlives workers; remove it",
    "worker_task_log_datefmt": _OWN_TIMES,
    "worker_pool_start_method": "not needed, because processes always come from a template process",
}
"""Celery's settings that do not exist here, each with the reason and what to do."""

_IRREGULAR_NEW = {new: old for old, new in _IRREGULAR.items()}


def old_name(flat_name: str) -> str:
    """The upper-case name that Celery before version 4 had, or would have had, for a setting.

    >>> old_name("worker_concurrency")
    'CELERYD_CONCURRENCY'
    """
    if flat_name in _IRREGULAR_NEW:
        return _IRREGULAR_NEW[flat_name]
    prefix = next((prefix for prefix in _OLD_PREFIXES if flat_name.startswith(prefix)), None)
    if prefix is None:
        return f"CELERY_{flat_name.upper()}" if flat_name in _OURS else flat_name.upper()
    return _OLD_PREFIXES[prefix] + flat_name.removeprefix(prefix).upper()


def old_names(flat_names: Iterable[str]) -> dict[str, str]:
    """Old name to today's, for `flat_names` and for Celery's that do not exist here."""
    return {old_name(name): name for name in (*flat_names, *ALIASES, *UNSUPPORTED)} | _FURTHER


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `name`, or None when none is near."""
    # Prefixes are what people leave out, so an end that fits is nearer than any spelling.
    names = sorted(known)
    ending = [candidate for candidate in names if name and candidate.endswith("_" + name)]
    return next(iter(ending or get_close_matches(name, names, n=1, cutoff=0.6)), None)
