"""What pika and the broker report, as errors of ours.

Nothing of pika leaves this package: every exception that a caller or a callback gets is one of `amqp_tasks.errors`.
"""

from __future__ import annotations

import re
import ssl

from pika import exceptions as pika_errors
from pika.adapters.utils import connection_workflow

from amqp_tasks.errors import (
    BrokerAccessError,
    BrokerAuthenticationError,
    BrokerConnectionError,
    BrokerOperationError,
    BrokerUnreachable,
    ConfigurationError,
)

__all__ = (
    "REMEDY_UNREACHABLE",
    "connection_error",
    "is_not_running",
    "lost_error",
    "operation_error",
    "reply_of",
    "unknown_exchange_type",
    "unwritable",
)

# pika keeps only a repr of some reasons.
_QUOTED_LOSS = re.compile(r"(?:StreamLostError|AMQPConnectionError): \(['\"](.*)['\"],\)$", re.DOTALL)
_QUOTED_CODE = re.compile(r"ConnectionClosedByBroker: \((\d+)\) (.*)", re.DOTALL)
# "Invalid" is one whose plugin was enabled before, in the life of this node.
_UNKNOWN_TYPE = re.compile(r"(?:unknown|invalid) exchange type '(.*?)'")
_PLUGINS = {"x-consistent-hash": "rabbitmq_consistent_hash_exchange"}
_LIMIT = re.compile(r"limit", re.IGNORECASE)

REMEDY_UNREACHABLE = "; check that a broker runs there and that broker_url is right"


def operation_error(doing: str, exc: BaseException) -> BrokerOperationError:
    """A channel that the broker closed over one method."""
    code, text = reply_of(exc)
    plugin = _PLUGINS.get(unknown_exchange_type(exc))
    remedy = f"; enable its plugin with `rabbitmq-plugins enable {plugin}`" if plugin else ""
    return BrokerOperationError(
        f"{doing}: the broker answered {code} {text}{remedy}", reply_code=code, reply_text=text
    )


def is_not_running(error: Exception | None) -> bool:
    """Whether a queue is known to the broker and has no process: its node is down, or has not brought it up yet.

    The words are RabbitMQ's, in `rabbit_amqqueue.erl`; its code, 404, is also that of a queue that does not exist.
    """
    return isinstance(error, BrokerOperationError) and "is down or inaccessible" in error.reply_text


def unwritable(doing: str, exc: BaseException) -> ConfigurationError | None:
    """A name that AMQP cannot have, of which the broker was therefore not asked; None: `exc` is something else."""
    if isinstance(exc, UnicodeEncodeError):
        return ConfigurationError(f"{doing}: the name cannot be written as UTF-8")
    if isinstance(exc, pika_errors.ShortStringTooLong):
        return ConfigurationError(f"{doing}: the name is longer than 255 bytes")
    return None


def unknown_exchange_type(exc: BaseException | None) -> str:
    """The type that the broker does not know, or nothing; before RabbitMQ 4 it closes the whole connection over it."""
    match = _UNKNOWN_TYPE.search(reply_of(exc)[1])
    return match[1] if match else ""


def reply_of(exc: BaseException | None) -> tuple[int, str]:
    """Reply code and text of a close by the broker; (0, description) for anything else."""
    if isinstance(exc, pika_errors.ChannelClosed | pika_errors.ConnectionClosed):
        return exc.reply_code, exc.reply_text
    return 0, describe(exc) if exc is not None else "closed"


def _flatten(exc: BaseException) -> list[BaseException]:
    """The exceptions inside pika's workflow reports, innermost ones too."""
    found: list[BaseException] = []
    todo: list[BaseException] = [exc]
    while todo:
        item = todo.pop()
        found.append(item)
        if isinstance(item, connection_workflow.AMQPConnectionWorkflowFailed):
            todo.extend(reversed(list(item.exceptions)))
        elif isinstance(item, connection_workflow.AMQPConnectorPhaseErrorBase):
            todo.append(item.exception)
        elif item.args and isinstance(item.args[0], BaseException):
            todo.append(item.args[0])
    return found


def describe(exc: BaseException) -> str:
    """One line about the innermost reason."""
    inner = _flatten(exc)[-1]
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"TLS certificate refused: {inner.verify_message}"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(inner, connection_workflow.AMQPConnectorStackTimeout | TimeoutError):
        return "no answer in time"
    if isinstance(inner, pika_errors.ConnectionClosed):
        return f"closed by the broker: {inner.reply_code} {inner.reply_text}"
    if isinstance(inner, pika_errors.IncompatibleProtocolError):
        return "what answers there does not speak AMQP 0-9-1"
    if isinstance(inner, pika_errors.AMQPError) and inner.args:
        return _unquoted(str(inner.args[0]))
    return str(inner) or type(inner).__name__


def _unquoted(text: str) -> str:
    if match := _QUOTED_CODE.search(text):
        return f"closed by the broker: {match[1]} " + match[2].strip("'\"")
    match = _QUOTED_LOSS.search(text)
    return match[1] if match else text


def _closed_with(exc: BaseException) -> tuple[int, str]:
    """The close code behind pika's `Probable…Error`, which keeps only a repr of it."""
    if isinstance(exc, pika_errors.ConnectionClosedByBroker):
        return exc.reply_code, exc.reply_text
    match = _QUOTED_CODE.search(str(exc.args[0])) if exc.args else None
    return (int(match[1]), match[2].strip("'\"")) if match else (0, "")


def connection_error(exc: BaseException, *, url: str, user: str, vhost: str) -> BrokerConnectionError:
    """Why connecting to `url` (masked) failed.

    Final errors need proof: pika guesses "authentication" whenever a connection breaks in that phase, and
    a broker that is just going down breaks it too. So only a close with a code counts.
    """
    for item in _flatten(exc):
        if isinstance(item, pika_errors.AMQPConnectionError):
            final = _final_error(item, url=url, user=user, vhost=vhost)
            if final is not None:
                return final
    why = describe(exc)
    hint = REMEDY_UNREACHABLE
    if any(isinstance(item, ssl.SSLError) for item in _flatten(exc)):
        hint = "; give the CA in broker_use_ssl['ca_certs'], or check that the port speaks TLS"
    elif url.startswith("amqps:") and any(
        isinstance(item, pika_errors.IncompatibleProtocolError) for item in _flatten(exc)
    ):
        # pika's guess for whatever ends a connection before AMQP begins; with TLS 1.3 a server refuses then.
        why = "closed after the TLS handshake"
        hint = (
            "; if the broker wants a client certificate, give broker_use_ssl['certfile'], else check that the port"
            " speaks AMQP"
        )
    return BrokerUnreachable(f"cannot connect to {url}: {why}{hint}", url=url)


def _final_error(exc: BaseException, *, url: str, user: str, vhost: str) -> BrokerConnectionError | None:
    code, text = _closed_with(exc)
    if isinstance(exc, pika_errors.AuthenticationError) and not code:
        return BrokerAuthenticationError(
            f"{url} offers no login method that is configured: check broker_login_method", url=url
        )
    if isinstance(exc, pika_errors.ProbableAuthenticationError) and code == 403:
        return BrokerAuthenticationError(
            f"{url} refused user {user!r}: check user name and password in broker_url ({text})", url=url
        )
    if code in {403, 530} and not _LIMIT.search(text):
        return BrokerAccessError(
            f"{url}: virtual host {vhost!r} does not exist or user {user!r} may not enter it: create it, or grant"
            f" access with `rabbitmqctl set_permissions -p {vhost} {user} …` ({text})",
            url=url,
        )
    return None


def lost_error(exc: BaseException | None, *, url: str) -> BrokerConnectionError:
    """An open connection that is gone."""
    why = describe(exc) if exc is not None else "closed"
    return BrokerUnreachable(f"lost the connection to {url}: {why}", url=url)
