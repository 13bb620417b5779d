"""Which unconfirmed message made the broker close the channel? Pure decisions, from reply code and text."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from amqp_tasks.errors import (
    BrokerOperationError,
    MessageTooLarge,
    NotSent,
    PublishError,
    PublishRefused,
    SendUnknown,
    UnroutableError,
    UserIdRefused,
)
from amqp_tasks.transport.rabbitmq._pending import Pending

__all__ = ("culprit_error", "find_suspects", "is_certain", "is_suspicious")

# RabbitMQ's texts, 3.10 to 4.x; what does not match is found by sending again one by one.
_NO_EXCHANGE = re.compile(r"no exchange '(.*?)' in vhost", re.DOTALL)
_TOPIC = re.compile(r"access to topic '(.*?)' in exchange '(.*?)' in vhost", re.DOTALL)
_EXCHANGE = re.compile(r"exchange '(.*?)' in vhost", re.DOTALL)
_TOO_LARGE = re.compile(r"message size (\d+) (?:is )?larger than (?:configured )?max(?:imum)? size (\d+)")
_USER_ID = re.compile(r"user_id property set to '(.*)' but authenticated user was '(.*)'", re.DOTALL)
# A long name cuts the text short.
_ANY_USER_ID = re.compile(r"user_id property set to '")

_ACCESS_REFUSED, _PRECONDITION_FAILED = 403, 406

# Closes of the connection that a message itself can cause; any other means the broker or the network.
_MESSAGE_CODES = frozenset({501, 502, 503, 505, 506, 530, 540})


def is_suspicious(code: int) -> bool:
    """Whether a connection closed with this code may have been closed over one of our messages."""
    return code in _MESSAGE_CODES


def find_suspects(text: str, unconfirmed: Sequence[Pending]) -> list[Pending]:
    """Those of `unconfirmed` (in order) that the reply text fits; all of them when it says nothing."""
    if match := _TOO_LARGE.search(text):
        size = int(match[1])
        return [p for p in unconfirmed if len(p.message.body) == size]
    if match := _TOPIC.search(text):
        return [p for p in unconfirmed if (p.message.routing_key, p.message.exchange) == (match[1], match[2])]
    if match := _NO_EXCHANGE.search(text) or _EXCHANGE.search(text):
        exchange = "" if match[1] in {"amq.default", ""} else match[1]
        return [p for p in unconfirmed if p.message.exchange == exchange]
    if match := _USER_ID.search(text):
        return [p for p in unconfirmed if p.message.properties.user_id == match[1]]
    return list(unconfirmed)


def is_certain(text: str, *, known_exchanges: Container[str]) -> bool:
    """Whether every suspect is a culprit, however many there are.

    An exchange that never gave a confirm (`known_exchanges`) is a wrong name; one that did has disappeared, and
    which message was the first to miss it is not known.
    """
    if match := _NO_EXCHANGE.search(text):
        return match[1] not in known_exchanges
    return _TOO_LARGE.search(text) is not None or _USER_ID.search(text) is not None


def culprit_error(pending: Pending, code: int, text: str) -> PublishError:
    """The outcome of the message that made the broker close the channel."""
    message = pending.message
    cause = BrokerOperationError(f"the broker answered {code} {text}", reply_code=code, reply_text=text)
    error: PublishError
    if match := _TOO_LARGE.search(text):
        error = MessageTooLarge(
            f"the body has {match[1]} bytes, the broker takes at most {match[2]}: pass a reference to the data"
            " instead, or raise the broker's max_message_size"
        )
    elif _ANY_USER_ID.search(text):
        error = UserIdRefused(
            f"the broker takes no message of user_id={message.properties.user_id!r:.80} from this connection: set it to"
            f" the user of broker_url, or leave it out ({text})"
        )
    elif pending.maybe_stored and code != _PRECONDITION_FAILED:  # a message of that shape is never stored
        error = SendUnknown(
            f"exchange {message.exchange!r} was there for a former writing and now answers {code} {text}"
        )
    elif code == 404:
        error = UnroutableError(
            f"no exchange {message.exchange!r} (routing key {message.routing_key!r}): declare it, or mend"
            f" task_routes ({text})"
        )
    else:
        kind = PublishRefused if code in {_ACCESS_REFUSED, _PRECONDITION_FAILED} else NotSent
        remedy = "; let the user of broker_url write to that exchange" if code == _ACCESS_REFUSED else ""
        error = kind(
            f"the broker refused the message for exchange {message.exchange!r}: {code} {text}{remedy}"
        )
    error.__cause__ = cause
    return error
