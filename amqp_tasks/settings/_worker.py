"""Settings of worker nodes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from amqp_tasks.settings._base import PositiveSeconds, Seconds, Section, expected, no_bool, split_text
from amqp_tasks.settings._names import did_you_mean

__all__ = ("Command", "LevelName", "Pool", "WorkerSettings")

POOL_ALIASES = {"processes": "prefork", "process": "prefork", "thread": "threads"}
GREENLET_POOLS = ("eventlet", "gevent")


def _writes_lines(text: str) -> str:
    """A format that has written a line; fields that no log record has yet may come from a filter or a record factory."""
    record = logging.LogRecord("amqp_tasks", logging.INFO, "", 0, "", (), None)
    try:
        logging.Formatter(text).format(record)
    except (ValueError, TypeError) as exc:
        if not isinstance(exc.__context__, KeyError):
            raise expected(
                f"a format such as '%(levelname)s: %(message)s'; logging cannot write lines by it: {exc}"
            ) from exc
    return text


Command = Literal["revoke", "terminate", "pause", "rate_limit"]
COMMANDS: tuple[Command, ...] = get_args(Command)


def _commands(value: object) -> object:
    names = () if value is None else split_text(value)
    if not isinstance(names, list | tuple | set | frozenset):
        return names
    given = list(cast("Iterable[object]", names))
    for name in given:
        if name not in COMMANDS:
            near = did_you_mean(name, COMMANDS) if isinstance(name, str) else None
            hint = f"; did you mean {near!r}?" if near else ""
            raise expected(f"a list of some of {', '.join(map(repr, COMMANDS))}{hint}")
    if "terminate" in given and "revoke" not in given:
        raise expected("'revoke' beside 'terminate'; what is terminated is revoked, so add it")
    return tuple(given)


Commands = Annotated[tuple[Command, ...], BeforeValidator(_commands)]
Pool = Literal["prefork", "threads", "solo"]
LevelName = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Weight = Annotated[float, Field(gt=0)]
LogFormat = Annotated[str, AfterValidator(_writes_lines)]
Limit = Annotated[int, BeforeValidator(no_bool), Field(ge=1)] | None


class WorkerSettings(Section):
    """Worker nodes."""

    concurrency: Limit = Field(
        default=None,
        description="Tasks that run at the same time: processes with `prefork`, threads with `threads`. None or `auto`:"
        " the CPUs this process may use, by affinity and container quota.",
    )
    pool: Pool = Field(
        default="prefork",
        description="What runs the tasks: `prefork` (processes, one task each), `threads` (one process), `solo` (one"
        " task at a time in the worker's own process).",
    )
    prefetch_multiplier: Limit = Field(
        default=None,
        description="Messages held per slot; None: as many as last about 20 ms, measured while running.",
    )
    prefetch_max: Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=65535)] = Field(
        default=256, description="Messages a process holds at most."
    )
    max_tasks_per_child: Limit = Field(
        default=None, description="Tasks after which a process is replaced; None: never."
    )
    max_memory_per_child: Limit = Field(
        default=None,
        description="KiB of resident memory above which a process is replaced after its task; None: never.",
    )
    stop_timeout: Seconds = Field(
        default=30.0,
        description="Seconds a warm stop gives running tasks before they are put back. Celery's name"
        " `worker_soft_shutdown_timeout` is understood.",
    )
    cold_stop_timeout: Seconds = Field(
        default=5.0,
        description="Seconds a cold stop gives to hand messages back before processes are killed.",
    )
    lost_wait: Seconds = Field(
        default=10.0, description="Seconds to wait for the outcome of a process that was lost."
    )
    proc_alive_timeout: PositiveSeconds = Field(
        default=4.0, description="Seconds a new process may take to report itself."
    )
    hung_timeout: PositiveSeconds | None = Field(
        default=60.0,
        description="Seconds without a sign of life after which a process is killed and replaced, unless it uses the processor:"
        " C code may hold the interpreter while it works. What it ran counts as crashed. None: never, as where"
        " processes are stopped on purpose (a debugger).",
    )
    journal_max_age: PositiveSeconds = Field(
        default=30 * 86_400.0,
        description="Seconds for which workers heed what was said to all of them, such as a revocation; entries leave the"
        " stream `amqp_tasks.journal` after about that time.",
    )
    enable_remote_control: bool = Field(
        default=True,
        description="Whether the worker heeds what `app.control` and the commands of the command line tell all workers. False: none of"
        " it. What nodes tell each other for safety, such as crashes, is heeded always.",
    )
    accept_commands: Commands = Field(
        default=COMMANDS,
        description="Which of these it heeds: `revoke` (and taking it back; by ids and by stamps), `terminate` (of running tasks; without"
        " it they are only revoked), `pause` (and `resume`), `rate_limit`. One that is refused is logged with its sender.",
    )
    health_file: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Path of a small file in which a worker says twice a second how it is, for `amqp-tasks health`; each worker"
        " needs one of its own. None: it says nothing.",
    )
    log_format: LogFormat = Field(
        default="[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
        description="Format of the worker's log lines.",
    )
    task_log_format: LogFormat = Field(
        default="[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
        description="Format of log lines written by tasks.",
    )
    log_color: bool | None = Field(
        default=None, description="Whether log lines are coloured; None: on a terminal."
    )
    redirect_stdouts: bool = Field(default=True, description="Whether what tasks print goes to the log.")
    redirect_stdouts_level: LevelName = Field(default="WARNING", description="Level of such log records.")
    hijack_root_logger: bool = Field(
        default=False,
        description="Whether handlers that the application put on the root logger are replaced.",
    )
    disable_rate_limits: bool = Field(
        default=False, description="Whether the rate limits of tasks are left out of account."
    )
    breaker_ratio: Annotated[float, BeforeValidator(no_bool), Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Of the last `worker_breaker_runs` tasks of a queue, the part that must fail for a process to run nothing"
        " of that queue for a while; 1: all. None: it goes on whatever fails.",
    )
    breaker_runs: Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=10_000)] = Field(
        default=20,
        description="How many runs `worker_breaker_ratio` looks at, of each queue in each process; before there were so many it"
        " judges nothing.",
    )
    breaker_pause: PositiveSeconds = Field(
        default=30.0,
        description="Seconds for which a process leaves such a queue alone before it tries one task; twice as long after each"
        " that fails, up to ten minutes.",
    )
    queue_weights: Mapping[str, Weight] = Field(
        default_factory=dict,
        description="Queue name to weight, above 0; a worker of several queues prefers those of more weight in this"
        " proportion. Queues not named have weight 1.",
    )

    @field_validator("concurrency", mode="before")
    @classmethod
    def _auto(cls, value: object) -> object:
        if value == "auto":
            return None
        if isinstance(value, str) and not value.strip().isdigit():
            raise expected("a whole number of at least 1, or 'auto' for the usable CPUs")
        return value

    @field_validator("pool", mode="before")
    @classmethod
    def _pool(cls, value: object) -> object:
        if isinstance(value, str) and value in GREENLET_POOLS:
            raise expected(
                f"one of 'prefork', 'threads', 'solo'; there is no greenlet pool: use 'threads' instead of {value!r}"
            )
        return POOL_ALIASES.get(value, value) if isinstance(value, str) else value

    @field_validator("redirect_stdouts_level", mode="before")
    @classmethod
    def _level(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value
