"""The pools that come with amqp-tasks, by name."""

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker.pool import Pool
from amqp_tasks.worker.pools.prefork import PreforkPool
from amqp_tasks.worker.pools.solo import SoloPool
from amqp_tasks.worker.pools.threads import ThreadsPool

__all__ = ("PreforkPool", "SoloPool", "ThreadsPool", "pool_named")

_POOLS: dict[str, type[Pool]] = {pool.name: pool for pool in (PreforkPool, ThreadsPool, SoloPool)}


def pool_named(name: str) -> type[Pool]:
    """The pool class of `worker_pool`.

    Raises:
        ConfigurationError: no such pool; lists those that are.
    """
    try:
        return _POOLS[name]
    except KeyError:
        raise ConfigurationError(f"unknown worker_pool {name!r}: use one of {', '.join(_POOLS)}") from None
