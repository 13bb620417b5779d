"""What a store of idempotency keys must do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = ("Claim", "ClaimState", "Holder", "IdempotencyStore")


class ClaimState(StrEnum):
    """What came of a claim."""

    OWN = "own"
    """It is the asker's: run."""
    TAKEN = "taken"
    """Another id has it, or another run of this one that may live: ask again later."""
    DONE = "done"
    """Somebody, perhaps the asker himself, has finished: do not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An answer of a store.

    Attributes:
        state: see `ClaimState`.
        value: what was given to `finish`; empty in other states.
    """

    state: ClaimState
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a key.

    Attributes:
        owner: the task id; whoever gets the task again has its claim still.
        run: a text that no other run has.
    """

    owner: str
    run: str


class IdempotencyStore(Protocol):
    """Remembers keys, each with its owner, until they expire, and which run of the owner's is under way, for as long as its lease is.

    Each method is one atomic step, for all processes that use the store.

    Thread safety: any thread. After a fork, each process works for itself.

    Raises:
        Exception: any, when the store cannot be asked now. The task then waits and is tried again.
    """

    def claim(
        self, key: str, holder: Holder, *, seconds: float, lease: float, is_successor: bool = False
    ) -> Claim:
        """Claim `key`, unless another owner has it, another run of this one has a lease, or it is done. Again is harmless.

        Args:
            key: what is to be done once.
            holder: who asks.
            seconds: for how long the claim stands at most.
            lease: seconds for which the run is believed to be under way, without `renew`.
            is_successor: the last run of this owner is known to be over: its lease does not count.
        """
        ...

    def renew(self, key: str, holder: Holder, *, lease: float) -> None:
        """The run is still under way, if nobody has taken the key over."""
        ...

    def rest(self, key: str, holder: Holder) -> None:
        """The run is over and another one of its owner is to follow: the claim stays, its lease ends. Idempotent."""
        ...

    def finish(self, key: str, holder: Holder, value: bytes, *, seconds: float) -> None:
        """Note that it is done, with its outcome, and remember both for so long."""
        ...

    def release(self, key: str, holder: Holder) -> None:
        """Let others claim it, if `holder` has it and has not finished. Idempotent."""
        ...

    def close(self) -> None:
        """Give up what it holds of connections. Idempotent."""
        ...
