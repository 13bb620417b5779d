"""What AMQP cannot tell and RabbitMQ's management API can: the bindings of a queue, and what consumers hold."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from amqp_routing import Binding
from amqp_tasks.errors import (
    BrokerAuthenticationError,
    BrokerOperationError,
    BrokerUnreachable,
    ConfigurationError,
)
from amqp_tasks.settings import Secret
from amqp_tasks.settings._url import split_url

__all__ = ("Load", "Management")

TIMEOUT = 10.0
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_WANTED = "the URL of the management API must look like http://user:password@host:15672 (or https)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a queue holds, as of some seconds ago.

    Attributes:
        messages: all of them.
        unacknowledged: those that were delivered and are not settled.
    """

    messages: int
    unacknowledged: int


class Management:
    """One virtual host as the management API sees it. Thread safety: any thread.

    Args:
        url: `http[s]://user:password@host:port`; the password is sent to that host and shown to nobody.
        vhost: the virtual host.

    Raises:
        ConfigurationError: not such a URL. Never shows the password.
    """

    def __init__(self, url: str, *, vhost: str) -> None:
        secret = Secret(url)
        # The plain text must not stay in a frame that a traceback with locals would print.
        del url
        if not secret.get_secret_value().lower().startswith(("http://", "https://")):
            raise ConfigurationError(_WANTED)
        parts = split_url(secret, "URL of the management API", "host:15672")
        if not parts.host:
            raise ConfigurationError(_WANTED)
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.host}]" if ":" in parts.host else parts.host
        self._base = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}/api"
        self._vhost = vhost
        user, password = unquote(parts.user or "guest"), parts.password or Secret("guest")
        login = f"{user}:{password.get_secret_value()}".encode("utf-8", "surrogateescape")
        self._authorization = base64.b64encode(login).decode("ascii")

    def bindings_of(self, queue_name: str) -> tuple[Binding, ...]:
        """What leads to a queue, the default exchange left out; empty when there is no such queue.

        Raises:
            BrokerUnreachable: nobody answers there.
            BrokerAuthenticationError: it refuses user and password, or the user has no tag such as `management`.
            BrokerOperationError: it refuses otherwise; `reply_code` is the HTTP status.
        """
        found: list[dict[str, Any]] = self._get("queues", self._vhost, queue_name, "bindings") or []
        return tuple(
            Binding(
                each["source"],
                queue_name,
                routing_key=each["routing_key"],
                arguments=each["arguments"],
            )
            for each in found
            if each["source"]
        )

    def loads(self) -> dict[str, Load]:
        """All queues of the virtual host, each with what it holds.

        Raises:
            BrokerUnreachable: nobody answers there.
            BrokerAuthenticationError: it refuses user and password, or the user has no tag such as `management`.
            BrokerOperationError: it refuses otherwise; `reply_code` is the HTTP status.
        """
        found: list[dict[str, Any]] = self._get("queues", self._vhost) or []
        return {
            str(each["name"]): Load(
                messages=int(each.get("messages") or 0),
                unacknowledged=int(each.get("messages_unacknowledged") or 0),
            )
            for each in found
        }

    def _get(self, *path: str) -> Any:
        """The decoded answer; None for 404."""
        url = "/".join((self._base, *(quote(part, safe="") for part in path)))
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {self._authorization}"})  # noqa: S310 - http or https, see above
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
                return json.loads(answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code == _NOT_FOUND:
                    return None
                text = f"the management API at {self._base} answered {exc.code} {exc.reason}: check user, password and rights"
                if exc.code == _UNAUTHORIZED:
                    raise BrokerAuthenticationError(text, url=self._base) from exc
                raise BrokerOperationError(text, reply_code=exc.code) from exc
        except (OSError, ValueError) as exc:
            why = exc.reason if isinstance(exc, urllib.error.URLError) else exc
            text = (
                f"the management API at {self._base} does not answer: {why}; check the URL, and whether RabbitMQ's plugin "
                "rabbitmq_management is enabled"
            )
            raise BrokerUnreachable(text) from exc
