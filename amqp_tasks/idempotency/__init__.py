"""Stores that remember which calls have been carried out; see `docs/explanation/idempotency.md`."""

from __future__ import annotations

from amqp_tasks.idempotency._contract import Claim, ClaimState, Holder, IdempotencyStore
from amqp_tasks.idempotency._memory import MemoryStore
from amqp_tasks.idempotency._open import open_store

__all__ = ("Claim", "ClaimState", "Holder", "IdempotencyStore", "MemoryStore", "open_store")
