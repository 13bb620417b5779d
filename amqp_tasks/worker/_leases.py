"""Leases of the runs that have an idempotency key: while they are renewed, no other message with the same id is run."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from amqp_tasks.message import printable
from amqp_tasks.worker._accounts import error_text

if TYPE_CHECKING:
    from amqp_tasks.idempotency import Holder, IdempotencyStore
    from amqp_tasks.message import Envelope

__all__ = ("EVERY", "LEASE", "Leases")

logger = logging.getLogger(__name__)

LEASE = 15.0
"""Seconds after the last renewal for which a run is believed to be under way."""
EVERY = LEASE / 3


class Leases:
    """Those of one process.

    Life: 1. made; 2. the first `hold` starts a thread, which waits for the store where nothing else has to; 3. `close` ends it.

    Thread safety: any thread. The lock is held while a lease is renewed: what was dropped is not renewed after that.

    Args:
        store: of the keys.
    """

    def __init__(self, store: IdempotencyStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        # With the message that is run: another one in this process may have the same id.
        self._held: dict[str, tuple[Holder, Envelope]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_warned = False

    def hold(self, key: str, holder: Holder, envelope: Envelope) -> None:
        """Renew it until it is dropped."""
        with self._lock:
            self._held[key] = (holder, envelope)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="amqp-tasks-leases", daemon=True)
                self._thread.start()

    def drop(self, key: str, envelope: Envelope) -> Holder | None:
        """Renew it no more, if this message has it; who held it, None when it has not."""
        with self._lock:
            holder, holding = self._held.get(key, (None, None))
            if holding is not envelope:
                return None
            del self._held[key]
            return holder

    def close(self, *, timeout: float) -> None:
        """Renew nothing more; idempotent. What runs on loses its leases when they are over."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _renew(self) -> None:
        while not self._closed.wait(EVERY):
            for key in tuple(self._held):
                if not self._renew_one(key):
                    break  # the store is away: not a wait for each

    def _renew_one(self, key: str) -> bool:
        with self._lock:
            if key not in self._held:
                return True
            holder, _ = self._held[key]
            try:
                self._store.renew(key, holder, lease=LEASE)
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - any library's; the runs go on
                self._warn(holder, exc)
                return False
            self._has_warned = False
            return True

    def _warn(self, holder: Holder, error: BaseException) -> None:
        logger.log(
            logging.DEBUG if self._has_warned else logging.WARNING,
            "the lease of task %s cannot be renewed in the idempotency store: %s",
            printable(holder.owner), printable(error_text(error), 512),
            extra={"action": "idempotency", "task_id": holder.owner},
        )  # fmt: skip
        self._has_warned = True
