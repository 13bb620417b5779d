"""A part of a topology, as a broker holds it or a declaration needs it."""

from __future__ import annotations

from collections.abc import Iterator

from amqp_routing import Topology

__all__ = ("PartialTopology",)


class PartialTopology(Topology):
    """What nobody would plan (a queue that lost its bindings, one without its dead-letter queue) is no fault here."""

    __slots__ = ()

    def _faults(self) -> Iterator[str]:
        return iter(())
