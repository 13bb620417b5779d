"""Settings of tasks: where they go and how they are sent and settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.settings._base import (
    Count,
    PositiveSeconds,
    Seconds,
    Section,
    SerializerName,
    expected,
    fault,
    no_bool,
    split_text,
)
from amqp_tasks.settings._rate import RATE_FORM, per_second
from amqp_tasks.settings._url import ResultUrl

__all__ = ("PublishRetryPolicy", "TaskSettings", "store_url")

Priority = Annotated[int, BeforeValidator(no_bool), Field(ge=0, le=255)] | None
QueueTypeName = Literal["quorum", "classic"]
Compression = Literal["gzip", "bzip2", "lzma", "zstd"]
COMPRESSION_ALIASES = {
    "zlib": "gzip",
    "bz2": "bzip2",
    "xz": "lzma",
    "zstandard": "zstd",
    "application/x-gzip": "gzip",
    "application/x-bz2": "bzip2",
    "application/x-lzma": "lzma",
    "application/zstd": "zstd",
}


def compression_name(value: object) -> object:
    """The name we use for what kombu calls by several."""
    return COMPRESSION_ALIASES.get(value, value) if isinstance(value, str) else value


def _rate(value: object) -> object:
    try:
        if value is not None and not isinstance(value, bool) and _is_a(value, int, float, str):
            per_second(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - just looked at
            return value
    except ValueError:
        pass
    else:
        if value is None:
            return None
    raise expected(RATE_FORM)


RateLimit = Annotated[float | str | None, BeforeValidator(_rate)]


def store_url(url: str) -> ResultUrl:
    """The address of a store, or a fault of the setting."""
    try:
        return ResultUrl.parse(url)
    except ConfigurationError as exc:
        text = str(exc)
    # Outside of the handler: a chained error would carry frames that hold the plain URL.
    raise fault(text)


def _store(value: object) -> object:
    if isinstance(value, ResultUrl) or not value:
        return value or None
    if isinstance(value, str):
        return store_url(value)
    raise expected("a URL such as 'redis://:password@host:6379/0', or None for no store")


StoreUrl = Annotated[ResultUrl | None, BeforeValidator(_store)]


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdigit() else value


class PublishRetryPolicy(Section):
    """How often and how soon a publish is tried again; all within `task_publish_timeout`."""

    max_retries: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] | None = Field(
        default=3, description="Further attempts; None: until the timeout."
    )
    interval_start: Seconds = Field(default=0.0, description="Seconds before the first retry.")
    interval_step: Seconds = Field(default=0.2, description="Seconds added with each further retry.")
    interval_max: Seconds = Field(default=1.0, description="Seconds between retries at most.")


class TaskSettings(Section):
    """Tasks: routing, publishing, settling."""

    default_queue: str = Field(
        default="default", min_length=1, max_length=255, description="Queue of tasks without a route."
    )
    default_queue_type: QueueTypeName = Field(
        default="quorum",
        description="Type of the default queue: replicated `quorum`, or `classic`, which has priorities.",
    )
    default_exchange: str | None = Field(
        default=None, description="Exchange of tasks without a route; None: the one of the default queue."
    )
    default_exchange_type: Literal["direct", "topic", "fanout", "headers", "x-consistent-hash"] = Field(
        default="direct", description="Type of `task_default_exchange`."
    )
    default_routing_key: str | None = Field(
        default=None, description="Routing key of tasks without a route; None: the default queue's name."
    )
    default_priority: Priority = Field(
        default=None,
        description="Priority of tasks that set none, 0 (lowest) to 255; None: none is sent, which counts as 0.",
    )
    inherit_parent_priority: bool = Field(
        default=False,
        description="Whether a call made in a task has that task's priority, when neither the call nor its task nor a"
        " route says one.",
    )
    queue_max_priority: Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=255)] | None = Field(
        default=None,
        description="`x-max-priority` of queues that set none; None: no priorities. Classic queues only, and each level"
        " costs the broker memory: 10 is plenty.",
    )
    default_delivery_mode: Annotated[Literal[1, 2], BeforeValidator(_number)] = Field(
        default=2, description="2: messages survive a broker restart. 1: they do not."
    )
    queues: Any = Field(
        default=None,
        description="Queues, as a list of `amqp_routing.Queue`, of kombu's `Queue` or of names, or as a mapping of names"
        " to options; None: the default queue only.",
    )
    routes: Any = Field(
        default=None,
        description="Where tasks go: a mapping of task name, glob or regular expression to options, a list of pairs, a"
        " callable, the dotted name of one, or a list of all these. The first that answers wins; None: all tasks go to"
        " the default queue.",
    )
    create_missing_queues: bool = Field(
        default=True,
        description="Whether a queue that is named somewhere but not in `task_queues` is created.",
    )
    create_missing_queue_type: QueueTypeName = Field(
        default="quorum", description="Type of queues created that way."
    )
    annotations: Any = Field(
        default=None,
        description="Options put on tasks from outside: a mapping of task name or `*` to attributes, an object with"
        " `annotate(task)`, or a list of both; None: none.",
    )
    dead_letter_queues: bool = Field(
        default=True,
        description="Whether each task queue gets a `<queue>.dead` that keeps what cannot run, and what failed with nobody to"
        " tell, with the reason. False: the broker drops it.",
    )
    serializer: SerializerName = Field(
        default="json", description="How arguments are written: `json`, `msgpack` or `yaml`."
    )
    compression: Annotated[Compression | None, BeforeValidator(compression_name)] = Field(
        default=None,
        description="How message bodies are compressed: `gzip`, `bzip2`, `lzma`, `zstd`; None: they are not.",
    )
    id_version: Annotated[Literal[4, 7], BeforeValidator(_number)] = Field(
        default=4,
        description="Version of the UUIDs that calls get as ids: 4 is random, 7 sorts by the time of the call (and tells it).",
    )
    ignore_result: bool = Field(
        default=False, description="Whether results of tasks that do not say are thrown away."
    )
    store_errors_even_if_ignored: bool = Field(
        default=True, description="Whether a failure is sent to the caller even where results are ignored."
    )
    acks_late: bool = Field(
        default=True,
        description="True: a message is acknowledged when its outcome is stored, so a task whose worker dies runs again."
        " False: when it starts, so it does not.",
    )
    acks_on_failure: bool = Field(
        default=True,
        description="True: a failed task is done when its failure is stored. False: its message goes to the dead letters, too,"
        " from where it can be put back.",
    )
    acks_on_timeout: bool = Field(
        default=True, description="The same for a task that was ended at its hard time limit."
    )
    time_limit: PositiveSeconds | None = Field(
        default=None,
        description="Seconds after which the process of a running task is ended and the task has failed with"
        " `TimeLimitExceeded`; calls and tasks may set their own. Only with the pool `prefork`. None: no limit.",
    )
    soft_time_limit: PositiveSeconds | None = Field(
        default=None,
        description="Seconds after which `SoftTimeLimitExceeded` is raised in a running task; calls and tasks may set"
        " their own. None: no limit.",
    )
    default_rate_limit: RateLimit = Field(
        default=None,
        description="How many runs of a task each worker node starts at most, for tasks that set none: `10/s`, `10/m`, `10/h`,"
        " or a number per second. None: no limit.",
    )
    track_started: bool = Field(
        default=False, description="Whether the start of a task is sent as state STARTED."
    )
    publish_timeout: PositiveSeconds = Field(
        default=30.0,
        description="Seconds that sending may take in all: connecting, waiting for a blocked broker, retries and the"
        " confirm.",
    )
    publish_retry: bool = Field(
        default=True, description="Whether sending is tried again after a lost connection."
    )
    publish_retry_policy: PublishRetryPolicy = Field(
        default_factory=PublishRetryPolicy,
        description="`max_retries` (None: until the timeout), `interval_start`, `interval_step`, `interval_max`"
        " (seconds). What is left out keeps its default.",
    )
    publish_window: Count = Field(
        default=1000, description="Messages sent in bulk that may wait for their confirm at the same time."
    )
    always_eager: bool = Field(
        default=False, description="Whether tasks run at once in the caller, for tests; no broker."
    )
    eager_propagates: bool = Field(
        default=False, description="Whether an eager task's exception is raised by the call itself."
    )
    store_eager_result: bool = Field(
        default=False,
        description="Whether the result of a task that ran in the caller goes to the result backend, where `app.AsyncResult(id)`"
        " finds it; tasks may set their own. Needs the broker.",
    )
    crash_limit: Count = Field(
        default=3,
        description="Times a task may take its worker process down before it goes to the dead letters.",
    )
    delivery_limit: Count = Field(
        default=50,
        description="`x-delivery-limit` of quorum queues: the broker's own backstop, after which it dead-letters. Far"
        " above `task_crash_limit`, as messages handed back count too.",
    )
    requeue_limit: Count = Field(
        default=50,
        description="Times a task may go back to its queue by `Reject(requeue=True)` before it goes to the dead letters.",
    )
    delayed_index: bool = Field(
        default=False,
        description="Whether delayed tasks are noted in a stream of the broker, so that `amqp-tasks delayed` and"
        " `app.delayed.find()` can list them: one more message for each, in bulk for 200. The same in callers and workers.",
    )
    idempotency_store: StoreUrl = Field(
        default=None,
        description="Where workers note which calls with an idempotency key are done: `redis://:password@host:port/db` (extra `redis`),"
        " `rediss://` with TLS (`?ssl_ca_certs=`, `ssl_certfile=` and `ssl_keyfile=` name files; certificate and host name are verified),"
        " or `memory://` together with the broker `memory://`. None: keys are not heeded.",
    )
    idempotency_expires: PositiveSeconds = Field(
        default=86_400.0,
        description="Seconds for which an idempotency key is remembered. A timedelta is understood.",
    )
    chord_timeout: PositiveSeconds | None = Field(
        default=604_800.0,
        description="Seconds without a new outcome of a member after which a chord is given up: its body fails with"
        " `ChordError`. Of a `Workflow`, seconds after which a step that others need is taken for lost: it fails with"
        " `StepLost`, and they are not run. Longer than any of these may wait, run or be retried. None: never.",
    )
    depth_limit: Count | None = Field(
        default=None,
        description="How deep tasks may call tasks: the first call has depth 0, one made inside of it 1, and so on. A"
        " deeper call raises `DepthLimitExceeded` in the task. None: no limit, as a task may rightly send itself again and again.",
    )
    remote_tracebacks: bool = Field(
        default=False,
        description="Whether the worker's traceback is part of the message of an exception raised by `get()`.",
    )

    @field_validator("queues", mode="before")
    @classmethod
    def _queues(cls, value: object) -> object:
        given = split_text(value)
        if given is None or _is_a(given, Mapping, list, tuple, set, frozenset):
            return given
        raise expected("a list of queues or a mapping of names to options")

    @field_validator("routes")
    @classmethod
    def _routes(cls, value: object) -> object:
        if not (value is None or _is_a(value, str, Mapping, list, tuple) or _is_router(value)):
            raise expected(
                "a mapping of task names to options, a callable, its dotted name, or a list of these"
            )
        from amqp_routing import RouteError, Router

        try:
            Router(value)  # dotted names are imported when it is asked
        except RouteError as exc:
            raise fault(str(exc)) from exc
        return value

    @field_validator("annotations")
    @classmethod
    def _annotations(cls, value: object) -> object:
        if value is None or _is_a(value, Mapping, list, tuple) or hasattr(value, "annotate"):
            return value
        raise expected(
            "a mapping of task names to attributes, an object with annotate(task), or a list of these"
        )


def _is_a(value: object, *types: type) -> bool:
    return isinstance(value, types)


def _is_router(value: object) -> bool:
    return callable(value) or hasattr(value, "route_for_task") or hasattr(value, "route")
