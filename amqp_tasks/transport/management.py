"""What AMQP cannot tell and RabbitMQ's management API can: the bindings of a queue."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from amqp_routing import Binding
from amqp_tasks.errors import BrokerOperationError, BrokerUnreachable, ConfigurationError

__all__ = ("Management",)

TIMEOUT = 10.0
_NOT_FOUND = 404


class Management:
    """One virtual host as the management API sees it. Thread safety: any thread.

    Args:
        url: `http[s]://user:password@host:port`; the password is sent to that host and shown to nobody.
        vhost: the virtual host.

    Raises:
        ConfigurationError: not such a URL.
    """

    def __init__(self, url: str, *, vhost: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(
                "the URL of the management API must look like http://user:password@host:15672 (or https)"
            )
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._base = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}/api"
        self._vhost = vhost
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self._authorization = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")

    def bindings_of(self, queue_name: str) -> tuple[Binding, ...]:
        """What leads to a queue, the default exchange left out; empty when there is no such queue.

        Raises:
            BrokerUnreachable: nobody answers there.
            BrokerOperationError: it refuses; `reply_code` is the HTTP status.
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
                raise BrokerOperationError(text, reply_code=exc.code) from exc
        except (OSError, ValueError) as exc:
            raise BrokerUnreachable(f"the management API at {self._base} does not answer: {exc}") from exc
