"""A small client of RabbitMQ's management HTTP API, on the standard library alone."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from support.eventually import eventually

__all__ = ("Management", "ManagementError")

ALL = {"configure": ".*", "write": ".*", "read": ".*"}


class ManagementError(Exception):
    """The API answered with an error status."""

    def __init__(self, method: str, path: str, status: int, text: str) -> None:
        self.status = status
        super().__init__(f"{method} {path}: {status} {text}")


class Management:
    """One broker's management API, by a URL with user and password in it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.user = unquote(parts.username or "guest")
        self.password = unquote(parts.password or "guest")
        self.base = f"{parts.scheme}://{parts.hostname}:{parts.port or 15672}/api"
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
        # No proxy of the environment may stand between the tests and their broker.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def url(self) -> str:
        """It, as `--management` takes it."""
        credentials = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return self.base.removesuffix("/api").replace("://", f"://{credentials}@")

    def request(self, method: str, *path: str, body: object = None, timeout: float = 10.0) -> Any:
        """Send one request; `path` parts are quoted one by one. Returns the decoded answer, or None.

        Raises:
            ManagementError: the API answered with an error status.
            OSError: nobody answered.
        """
        where = "/".join(quote(part, safe="") for part in path)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.base}/{where}", data=data, method=method, headers=self._headers
        )
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                text = answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                said = exc.read().decode(errors="replace")
            raise ManagementError(method, where, exc.code, said) from exc
        return json.loads(text) if text else None

    def version(self) -> tuple[int, ...]:
        """The broker's version."""
        text = str(self.request("GET", "overview", timeout=5.0)["rabbitmq_version"])
        return tuple(int(part) for part in re.findall(r"\d+", text)[:3])

    def add_vhost(self, name: str) -> None:
        """Create a virtual host with all permissions for this user."""
        # The nodes of a cluster agree on it, which takes those that have just begun a while; one of them may miss it for good.
        try:
            self.request("PUT", "vhosts", name, body={}, timeout=60.0)
        except ManagementError as exc:
            if exc.status != 500:
                raise
            self.delete_vhost(name)
            self.request("PUT", "vhosts", name, body={}, timeout=60.0)
        self.request("PUT", "permissions", name, self.user, body=ALL)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host and all in it; a missing one is fine."""
        try:
            self.request("DELETE", "vhosts", name, timeout=30.0)
        except ManagementError as exc:
            if exc.status != 404:
                raise

    def add_user(self, name: str, password: str) -> None:
        """Create a user without any permission."""
        self.request("PUT", "users", name, body={"password": password, "tags": ""})

    def delete_user(self, name: str) -> None:
        """Delete a user."""
        self.request("DELETE", "users", name)

    def permit(
        self, user: str, vhost: str, *, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Give a user these permissions (regular expressions) in a virtual host."""
        body = {"configure": configure, "write": write, "read": read}
        self.request("PUT", "permissions", vhost, user, body=body)

    def forbid(self, user: str, vhost: str) -> None:
        """Take all its permissions in a virtual host from a user."""
        self.request("DELETE", "permissions", vhost, user)

    def connections(self, vhost: str | None = None) -> list[dict[str, Any]]:
        """The open client connections, of one virtual host or of all. Lags some seconds behind."""
        found: list[dict[str, Any]] = self.request("GET", "connections")
        return [each for each in found if vhost is None or each.get("vhost") == vhost]

    def queues(self, vhost: str) -> list[dict[str, Any]]:
        """The queues of a virtual host as the API tells them; counts lag some seconds behind."""
        found: list[dict[str, Any]] = self.request("GET", "queues", vhost)
        return found

    def queue(self, vhost: str, name: str, within: float = 5.0) -> dict[str, Any]:
        """One queue, waited for, as it shows here a moment after its declaration.

        Raises:
            AssertionError: it did not show within so many seconds.
        """

        def ask() -> dict[str, Any]:
            try:
                found: dict[str, Any] = self.request("GET", "queues", vhost, name)
            except ManagementError as exc:
                if exc.status != 404:
                    raise
                raise AssertionError(f"no queue {name!r} in virtual host {vhost!r}") from exc
            return found

        return eventually(ask, within)

    def bindings(self, vhost: str) -> list[dict[str, Any]]:
        """All bindings of a virtual host."""
        found: list[dict[str, Any]] = self.request("GET", "bindings", vhost)
        return found

    def exchange(self, vhost: str, name: str) -> dict[str, Any]:
        """One exchange.

        Raises:
            ManagementError: status 404 when it does not exist.
        """
        found: dict[str, Any] = self.request("GET", "exchanges", vhost, name)
        return found

    def close_connection(self, name: str, reason: str = "closed by a test") -> None:
        """Make the broker close one connection (320 connection-forced); one that is gone is fine."""
        try:
            self.request("DELETE", "connections", name)
        except ManagementError as exc:
            if exc.status != 404:
                raise
