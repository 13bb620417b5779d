"""The store that a setting names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.idempotency._memory import MemoryStore

if TYPE_CHECKING:
    from amqp_tasks.idempotency._contract import IdempotencyStore
    from amqp_tasks.settings import Settings

__all__ = ("open_store",)


def open_store(settings: Settings) -> IdempotencyStore | None:
    """The store of `task_idempotency_store`, without any I/O; None: there is none.

    Raises:
        ConfigurationError: no store has such a URL, its extra is missing, or it cannot serve the processes of a worker.
    """
    url = settings.task.idempotency_store
    if url is None:
        return None
    if url.scheme == "memory":
        if settings.broker.url[0].scheme != "memory":
            raise ConfigurationError(
                "task_idempotency_store='memory://' is known to one process only, and serves tests with the broker memory://:"
                " use redis://host:6379/0"
            )
        return MemoryStore()
    if url.scheme not in {"redis", "rediss"}:
        raise ConfigurationError(
            f"task_idempotency_store: expected redis://, rediss:// or memory://, got {url.masked!r}"
        )
    from amqp_tasks.idempotency._redis import RedisStore

    return RedisStore(url)
