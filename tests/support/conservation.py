"""The law that every fault test ends with: nothing accepted is lost, nothing is unexpected."""

from __future__ import annotations

import json
from collections.abc import Collection

from support.eventually import eventually
from support.ledger import Ledger
from support.raw import RawClient, RawMessage

__all__ = ("assert_conserved", "keys_in", "reason_of")


def reason_of(message: RawMessage) -> str:
    """Why a message lies among the dead letters."""
    headers = message.properties.headers
    assert headers is not None
    return str(headers["x-error-reason"])


def keys_in(raw: RawClient, queue: str) -> list[str]:
    """The first argument of each task message in a queue; takes them out."""
    # A queue without a leader, as a killed node may leave it for a while, would block a basic.get.
    if not raw.depth(queue):
        return []
    return [json.loads(message.body)[0][0] for message in raw.drain(queue)]


def assert_conserved(
    sent: Collection[str], ledger: Ledger, raw: RawClient, *, queue: str = "work", within: float = 5.0
) -> None:
    """Each key that was sent is done, dead or queued, and no other key is anywhere. Ends with empty queues.

    Call it when nothing consumes any more.
    """
    left: set[str] = set()

    def settled() -> None:
        left.update(keys_in(raw, queue), keys_in(raw, f"{queue}.dead"))
        accounted = set(ledger.keys("done")) | left
        assert accounted >= set(sent), f"lost: {sorted(set(sent) - accounted)}"
        assert accounted <= set(sent), f"unexpected: {sorted(accounted - set(sent))}"

    eventually(settled, within=within)
