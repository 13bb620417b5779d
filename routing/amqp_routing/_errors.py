"""Every error that amqp_routing raises.

    RoutingError
    ├── DeclarationError (ValueError)   an exchange, queue or binding that RabbitMQ would refuse or ignore
    ├── TopologyError (ValueError)      values that do not fit together; every fault is listed
    ├── RouteError (ValueError)         a route, or what a router returned, that cannot be read
    ├── ConversionError (ValueError)    something that has no counterpart on the other side (kombu)
    ├── UnknownExchange (LookupError)   a message to an exchange that is not in the topology (404)
    └── PublishRefused                  a message that the broker would refuse before routing it

Facts are attributes and the message is built from them, so that errors pickle and compare by what they say: `FactualError`.
"""

from __future__ import annotations

from typing import Any

__all__ = (
    "ConversionError",
    "DeclarationError",
    "FactualError",
    "PublishRefused",
    "RouteError",
    "RoutingError",
    "TopologyError",
    "UnknownExchange",
)


class FactualError(Exception):
    """An error whose facts are attributes: it is pickled, copied and compared by them, however it is constructed.

    amqp_tasks has it as the base of its errors too.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take keyword facts; rebuilding through __init__ would need them positionally.
        return _rebuild, (type(self), self.args, self.__dict__.copy())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.args == other.args and self.__dict__ == other.__dict__

    __hash__ = Exception.__hash__


def _rebuild(cls: type[FactualError], args: tuple[Any, ...], facts: dict[str, Any]) -> FactualError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class RoutingError(FactualError):
    """The root of the tree."""


class DeclarationError(RoutingError, ValueError):
    """An exchange, queue or binding that RabbitMQ would refuse, or accept and ignore.

    Attributes:
        subject: what was built, e.g. `queue 'mail'`.
        faults: every fault with its remedy.
    """

    def __init__(self, subject: str, faults: tuple[str, ...]) -> None:
        self.subject, self.faults = subject, faults
        super().__init__("\n".join(f"{subject}: {fault}" for fault in faults))


class TopologyError(RoutingError, ValueError):
    """Exchanges, queues and bindings that do not fit together.

    Attributes:
        faults: every fault with its remedy, a line each.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class RouteError(RoutingError, ValueError):
    """A route, or what a router returned, that cannot be read."""


class ConversionError(RoutingError, ValueError):
    """A kombu object that says more than a declaration can, or a topology that kombu cannot say."""


class UnknownExchange(RoutingError, LookupError):
    """A message to an exchange that the topology does not hold; the broker closes the channel with 404.

    Attributes:
        exchange: its name.
        known: the names of the exchanges there are.
    """

    def __init__(self, exchange: str, known: tuple[str, ...] = ()) -> None:
        self.exchange, self.known = exchange, known
        listed = ", ".join(repr(name) for name in known) or "none"
        super().__init__(f"unknown exchange {exchange!r} (known: {listed}): add it to the topology")


class PublishRefused(RoutingError):
    """A message that the broker refuses before routing it: an internal exchange, or a CC header it cannot read."""
