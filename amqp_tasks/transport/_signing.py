"""A transport that signs what is published; see `docs/explanation/security.md`, "Signed messages"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from amqp_tasks.transport._passing import PassingTransport

if TYPE_CHECKING:
    from amqp_tasks.errors import PublishError
    from amqp_tasks.message import KeyRing, OutgoingMessage
    from amqp_tasks.transport._contract import Transport

__all__ = ("SigningTransport",)


class SigningTransport(PassingTransport):
    """Signs each message that says as what, and passes everything on. Whoever reads checks by `keys`.

    Here, as a message has its final form when it is published: reply queue, place in a workflow, changes of a retry.

    Thread safety: as the transport that it passes on to.

    Args:
        inner: does the work; closed with this one.
        keys: see `KeyRing`.
    """

    def __init__(self, inner: Transport, keys: KeyRing) -> None:
        super().__init__(inner)
        self._keys = keys

    @property
    def keys(self) -> KeyRing | None:
        """See `Transport.keys`."""
        return self._keys

    def publish(self, message: OutgoingMessage, *, timeout: float | None = None) -> None:
        """See `Transport.publish`."""
        self._inner.publish(self._signed(message), timeout=timeout)

    def publish_many(
        self, messages: Iterable[OutgoingMessage], *, timeout: float | None = None
    ) -> Sequence[PublishError | None]:
        """See `Transport.publish_many`."""
        return self._inner.publish_many(map(self._signed, messages), timeout=timeout)

    def publish_nowait(
        self,
        message: OutgoingMessage,
        on_outcome: Callable[[PublishError | None], None],
        *,
        timeout: float | None = None,
    ) -> None:
        """See `Transport.publish_nowait`."""
        self._inner.publish_nowait(self._signed(message), on_outcome, timeout=timeout)

    def _signed(self, message: OutgoingMessage) -> OutgoingMessage:
        self._keys.sign(message)
        return message
