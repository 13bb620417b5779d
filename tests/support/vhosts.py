"""A virtual host of one test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from support.eventually import eventually
from support.management import Management

__all__ = ("SECRET", "Vhost", "make_vhost", "new_vhost")

SECRET = "s3cr3t-canary"
"""Part of the passwords made here: tests look for it where no password may show."""


@dataclass(slots=True, kw_only=True)
class Vhost:
    """A virtual host that one test has for itself.

    Attributes:
        name: its name.
        url: the AMQP URL, with user and password.
        management: the broker's management client, all virtual hosts.
    """

    name: str
    url: str
    management: Management
    _users: list[str] = field(default_factory=list)

    def queues(self) -> list[dict[str, Any]]:
        """Its queues as the management API tells them; for depths prefer `RawClient.depth`, which does not lag."""
        return self.management.queues(self.name)

    def queue(self, name: str, within: float = 5.0) -> dict[str, Any]:
        """One of its queues, waited for."""
        return self.management.queue(self.name, name, within)

    def connections(self) -> list[dict[str, Any]]:
        """Its client connections; a new one shows after up to five seconds."""
        return self.management.connections(self.name)

    def close_connections(self, *, at_least: int = 1, within: float = 10.0) -> int:
        """Wait until so many connections show and make the broker close all; returns how many."""

        def enough() -> list[dict[str, Any]]:
            found = [each for each in self.connections() if each.get("name")]
            assert len(found) >= at_least, f"{len(found)} connections in {self.name}, {at_least} wanted"
            return found

        found = eventually(enough, within)
        for each in found:
            self.management.close_connection(each["name"])
        return len(found)

    def url_at(self, host: str, port: int) -> str:
        """The same virtual host through another address, e.g. a `TcpProxy`."""
        parts = urlsplit(self.url)
        credentials = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{credentials}@{host}:{port}").geturl()

    def url_of(self, user: str, password: str) -> str:
        """The same virtual host for another user."""
        parts = urlsplit(self.url)
        address = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{quote(user)}:{quote(password)}@{address}").geturl()

    def limited_url(
        self, *, configure: str = "^$", write: str = "^$", read: str = "^$", permitted: bool = True
    ) -> str:
        """The URL of a new user with only these permissions here (or none at all, unless `permitted`).

        The password contains `SECRET`. The user is deleted with the virtual host.
        """
        user, password = f"u-{uuid.uuid4().hex[:12]}", f"{SECRET}-{uuid.uuid4().hex[:6]}"
        self.management.add_user(user, password)
        self._users.append(user)
        if permitted:
            self.management.permit(user, self.name, configure=configure, write=write, read=read)
        return self.url_of(user, password)

    def permit(
        self, url: str, *, configure: str = "^$", write: str = "^$", read: str = "^$", permitted: bool = True
    ) -> None:
        """Change what the user of this URL, made by `limited_url`, may do from now on."""
        user = unquote(urlsplit(url).username or "")
        if permitted:
            self.management.permit(user, self.name, configure=configure, write=write, read=read)
        else:
            self.management.forbid(user, self.name)

    def delete(self) -> None:
        """Delete it with all it holds, and the users made for it."""
        self.management.delete_vhost(self.name)
        while self._users:
            self.management.delete_user(self._users.pop())


def make_vhost(broker_url: str, management: Management) -> Vhost:
    """A fresh virtual host at the broker of `broker_url`."""
    name = f"t-{uuid.uuid4().hex[:16]}"
    management.add_vhost(name)
    parts = urlsplit(broker_url)
    return Vhost(
        name=name, url=parts._replace(path=f"/{quote(name, safe='')}").geturl(), management=management
    )


@contextmanager
def new_vhost(broker_url: str, management: Management) -> Iterator[Vhost]:
    """The same, deleted at the end."""
    vhost = make_vhost(broker_url, management)
    try:
        yield vhost
    finally:
        vhost.delete()
