"""A store in Redis: one text for each key, and one for the run that has it; both expire by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.idempotency._contract import Claim, ClaimState, Holder

if TYPE_CHECKING:
    from amqp_tasks.settings import ResultUrl

__all__ = ("RedisStore",)

PREFIX = "amqp_tasks:idempotency:"
RUN_PREFIX = "amqp_tasks:idempotency-run:"
TIMEOUT = 5.0
"""Seconds for each step: a slot waits for it."""
_CLAIMED, _DONE = b"c", b"d"
# Each is one step that nothing comes between. KEYS: the claim or outcome; the run, which expires with its lease.
# ARGV: the claim of the owner, the run, and what is said below.
_CLAIM = """
-- milliseconds of the claim, of the lease, and whether the lease of another run counts; returns what stands in the way
local found, run = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if found and found ~= ARGV[1] then return found end
if found and run and run ~= ARGV[2] and ARGV[5] == '0' then return found end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
return false
"""
_RENEW = """
-- milliseconds of the lease; one that is over comes to life again if nobody has taken over
local run = redis.call('GET', KEYS[2])
if redis.call('GET', KEYS[1]) == ARGV[1] and (not run or run == ARGV[2]) then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
return false
"""
_REST = """
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
return false
"""
_FINISH = """
-- the outcome, and for how many milliseconds
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('DEL', KEYS[2])
return false
"""
_RELEASE = """
local run = redis.call('GET', KEYS[2])
if redis.call('GET', KEYS[1]) == ARGV[1] and (not run or run == ARGV[2]) then
  redis.call('DEL', KEYS[1], KEYS[2])
end
return false
"""


class RedisStore:
    """See `IdempotencyStore`. Connects at its first use, once more in each process after a fork.

    Args:
        url: of a Redis server; `rediss` is TLS, with certificate and host name verified.

    Raises:
        ConfigurationError: the extra is missing, or the URL names no database, or a file that is not there.
    """

    def __init__(self, url: ResultUrl) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as exc:
            raise ConfigurationError(
                "task_idempotency_store needs the package redis: pip install 'amqp-tasks[redis]'"
            ) from exc
        if not url.database.isdigit():
            raise ConfigurationError(
                f"task_idempotency_store: expected the number of a database behind the slash, got {url.masked!r}"
            )
        files: dict[str, Any] = dict(url.options)
        for name, file in files.items():
            if not Path(file).is_file():
                raise ConfigurationError(f"task_idempotency_store: there is no file {file!r} for {name}")
        self._redis: Any = redis.Redis(
            host=url.host or "localhost",
            port=url.port or 6379,
            db=int(url.database),
            username=url.user,
            password=url.password.get_secret_value() or None,
            ssl=url.scheme == "rediss",
            ssl_check_hostname=True,  # before redis 6 any certificate of a trusted authority would do
            **files,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # Else it tries again, for a minute with its pauses. Whoever asks has a remedy of his own.
            retry=Retry(NoBackoff(), 0),
        )

    def claim(
        self, key: str, holder: Holder, *, seconds: float, lease: float, is_successor: bool = False
    ) -> Claim:
        """See `IdempotencyStore.claim`."""
        found = self._do(_CLAIM, key, holder, _ms(seconds), _ms(lease), int(is_successor))
        if not found:
            return Claim(state=ClaimState.OWN)
        if found[:1] == _DONE:
            return Claim(state=ClaimState.DONE, value=found[1:])
        return Claim(state=ClaimState.TAKEN)

    def renew(self, key: str, holder: Holder, *, lease: float) -> None:
        """See `IdempotencyStore.renew`."""
        self._do(_RENEW, key, holder, _ms(lease))

    def rest(self, key: str, holder: Holder) -> None:
        """See `IdempotencyStore.rest`."""
        self._do(_REST, key, holder)

    def finish(self, key: str, holder: Holder, value: bytes, *, seconds: float) -> None:
        """See `IdempotencyStore.finish`."""
        self._do(_FINISH, key, holder, _DONE + value, _ms(seconds))

    def release(self, key: str, holder: Holder) -> None:
        """See `IdempotencyStore.release`."""
        self._do(_RELEASE, key, holder)

    def _do(self, script: str, key: str, holder: Holder, *more: bytes | int) -> bytes | None:
        owner = _CLAIMED + holder.owner.encode()
        found: bytes | None = self._redis.eval(
            script, 2, PREFIX + key, RUN_PREFIX + key, owner, holder.run, *more
        )
        return found

    def close(self) -> None:
        """See `IdempotencyStore.close`."""
        self._redis.close()


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
