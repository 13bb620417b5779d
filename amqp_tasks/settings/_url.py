"""Addresses as values: of a broker, of a result store. The password never shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from amqp_tasks.errors import ConfigurationError, UnsupportedTransport
from amqp_tasks.settings._secrets import MASK, Secret, mask_secrets

__all__ = ("BrokerUrl", "ResultUrl", "UrlParts", "split_url")

DEFAULT_HOST = "localhost"
DEFAULT_USER = "guest"
DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
BROKER_SCHEMES = ("amqp", "amqps", "pyamqp", "memory")
BROKER_OPTIONS = {"heartbeat": int, "connection_timeout": float}
"""What may follow the `?`: both in seconds, both for every URL of a failover list alike."""
MAX_HEARTBEAT = 65535
"""Seconds; AMQP has 16 bits for them."""
STORE_PORTS = {"redis": 6379, "rediss": 6379}
TLS_STORE = "rediss"
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""What may follow the `?` of a store with TLS: names of files, under the names of redis-py."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class UrlParts:
    """A URL taken apart, user and path as written; what was left out is None."""

    scheme: str
    host: str | None
    port: int | None
    user: str | None
    password: Secret | None
    path: str
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """The address of a broker: `amqp[s]://user:password@host:port/vhost?option=value`, or `memory://`.

    Attributes:
        scheme: `amqp`, `amqps` or `memory`; `pyamqp` is read as `amqp`.
        host: without the brackets of an IPv6 address.
        port: 5672, or 5671 with TLS, when the URL has none.
        user: `guest` when the URL has none.
        password: see `Secret`; `guest` when the URL has neither user nor password.
        vhost: decoded; `/` when the path is missing or empty. For `memory` a name that tells several apart.
        query: the options after `?`; see `heartbeat` and `connection_timeout`.
    """

    scheme: str = "amqp"
    host: str = DEFAULT_HOST
    port: int = 5672
    user: str = DEFAULT_USER
    password: Secret = Secret("guest")  # noqa: RUF009 - immutable
    vhost: str = "/"
    query: Mapping[str, str] = field(default_factory=lambda: _NO_OPTIONS, hash=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address in `text`.

        Raises:
            UnsupportedTransport: a scheme no transport serves; the message lists those that are.
            ConfigurationError: not a URL, a port that is none, an unknown option. Never shows the password.
        """
        secret = Secret(text)
        # The plain text must not stay in a frame that a traceback with locals would print.
        del text
        return cls._from_parts(split_url(secret, "broker URL", "host:port/vhost"))

    @classmethod
    def _from_parts(cls, parts: UrlParts) -> Self:
        if parts.scheme not in BROKER_SCHEMES:
            raise UnsupportedTransport(_unsupported(parts.scheme))
        scheme = "amqp" if parts.scheme == "pyamqp" else parts.scheme
        if scheme == "memory":
            _refuse_options(parts.query)
            return cls(
                scheme=scheme,
                host=parts.host or "",
                port=0,
                user="",
                password=Secret(""),
                vhost=_vhost(parts.path),
            )
        _check_options(parts.query)
        user = unquote(parts.user) if parts.user else DEFAULT_USER
        return cls(
            scheme=scheme,
            host=parts.host or DEFAULT_HOST,
            port=parts.port or DEFAULT_PORTS[scheme],
            user=user,
            password=parts.password or Secret(DEFAULT_USER if user == DEFAULT_USER else ""),
            vhost=_vhost(parts.path),
            query=parts.query,
        )

    @property
    def tls(self) -> bool:
        """Whether the scheme asks for TLS."""
        return self.scheme == "amqps"

    @property
    def heartbeat(self) -> int | None:
        """The option `heartbeat` in seconds, or None."""
        value = self.query.get("heartbeat")
        return None if value is None else int(value)

    @property
    def connection_timeout(self) -> float | None:
        """The option `connection_timeout` in seconds, or None."""
        value = self.query.get("connection_timeout")
        return None if value is None else float(value)

    @property
    def masked(self) -> str:
        """The URL for people: complete but for the password, e.g. `amqp://guest:**@host:5672//`."""
        return self._text(MASK if self.password else "")

    def reveal(self) -> str:
        """The URL with its password, for a client library and for nothing that is shown or stored.

        Raises:
            ConfigurationError: this is the copy out of a pickle, which does not carry the password.
        """
        return self._text(quote(self.password.get_secret_value(), safe=""))

    def __str__(self) -> str:
        return self.masked

    def __repr__(self) -> str:
        return f"BrokerUrl({self.masked!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # A mapping proxy does not pickle; the secret drops its value by itself.
        return _rebuild, (
            self.scheme,
            self.host,
            self.port,
            self.user,
            self.password,
            self.vhost,
            dict(self.query),
        )

    def _text(self, password: str) -> str:
        if self.scheme == "memory":
            return f"memory://{self.host}{'' if self.vhost == '/' else '/' + quote(self.vhost, safe='')}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = quote(self.user, safe="") + (f":{password}" if password else "")
        # "//" says "the vhost named /" in the words of the field; the slash of any other name is encoded.
        vhost = "/" if self.vhost == "/" else quote(self.vhost, safe="")
        options = "&".join(f"{name}={value}" for name, value in self.query.items())
        return f"{self.scheme}://{login}@{host}:{self.port}/{vhost}{'?' + options if options else ''}"


def _rebuild(
    scheme: str, host: str, port: int, user: str, password: Secret, vhost: str, query: dict[str, str]
) -> BrokerUrl:
    return BrokerUrl(
        scheme=scheme,
        host=host,
        port=port,
        user=user,
        password=password,
        vhost=vhost,
        query=MappingProxyType(query),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultUrl:
    """The address of a result backend: `rpc://`, or a store such as `redis://:password@host:port/db`, `rediss://` with TLS.

    Attributes:
        scheme: names the backend.
        host: None where the URL has none.
        port: the store's own default when the URL has none, or None.
        user: None where the URL has none.
        password: see `Secret`.
        database: what stands behind the first slash, decoded; `0` for Redis when it is missing.
        options: what stands behind the `?`, as pairs: of `rediss` the files `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile`.
    """

    scheme: str
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: Secret = Secret("")  # noqa: RUF009 - immutable
    database: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address in `text`; a bare name such as `rpc` is its scheme.

        Raises:
            ConfigurationError: not a URL, a port that is none, an unknown option. Never shows the password.
        """
        # Nothing but a name is taken for a scheme: what is behind a typo may be a password.
        secret = Secret(f"{text}://" if _SCHEME.fullmatch(text) else text)
        del text
        parts = split_url(secret, "URL of a store", "host:port/db")
        _check_store_options(parts.scheme, parts.query)
        is_redis = parts.scheme in STORE_PORTS
        return cls(
            scheme=parts.scheme,
            host=parts.host or (DEFAULT_HOST if is_redis else None),
            port=parts.port or STORE_PORTS.get(parts.scheme),
            user=unquote(parts.user) if parts.user else None,
            password=parts.password or Secret(""),
            database=unquote(parts.path.removeprefix("/")) or ("0" if is_redis else ""),
            options=tuple(parts.query.items()),
        )

    @property
    def masked(self) -> str:
        """The URL for people: complete but for the password."""
        return self._text(MASK)

    def reveal(self) -> str:
        """The URL with its password, for another program and for nothing that is shown or stored.

        Raises:
            ConfigurationError: this is the copy out of a pickle, which does not carry the password.
        """
        return self._text(quote(self.password.get_secret_value(), safe=""))

    def __str__(self) -> str:
        return self.masked

    def __repr__(self) -> str:
        return f"ResultUrl({self.masked!r})"

    def _text(self, password: str) -> str:
        login = (quote(self.user, safe="") if self.user else "") + (f":{password}" if self.password else "")
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ""
        port = f":{self.port}" if self.port else ""
        path = f"/{quote(self.database, safe='')}" if self.database else ""
        options = "&".join(f"{name}={quote(value, safe='/')}" for name, value in self.options)
        return f"{self.scheme}://{login}{'@' if login else ''}{host}{port}{path}{'?' + options if options else ''}"


def split_url(secret: Secret, what: str, place: str) -> UrlParts:
    """Take a URL apart.

    Args:
        secret: the whole of it.
        what: what errors call it.
        place: what they say is to stand behind the `@`.

    Raises:
        ConfigurationError: it is none, or would be read otherwise than it was meant. Never shows the password, nor has it in
            an error that it is chained to.
    """
    fault = _fault(secret, place)
    if fault:
        raise ConfigurationError(f"{what}: {fault}")
    url = urlsplit(secret.get_secret_value())
    return UrlParts(
        scheme=url.scheme.lower(),
        host=unquote(url.hostname) if url.hostname else None,
        port=url.port,
        user=url.username,
        password=None if url.password is None else Secret(unquote(url.password)),
        path=url.path,
        query=MappingProxyType(dict(parse_qsl(url.query, keep_blank_values=True))),
    )


def _fault(secret: Secret, place: str) -> str:
    text = secret.get_secret_value()
    masked = mask_secrets(text)
    if "://" not in text:
        return f"expected scheme://user:password@{place}, got text without '://'"
    if any(character.isspace() for character in text.strip()) or text != text.strip():
        return f"expected a URL without blanks, got {masked!r}; percent-encode them as %20"
    if "@" in _behind_authority(text):
        # A password with "/" ends the host early; guessing would connect elsewhere and show its rest as a path.
        return (
            "'@' stands behind the host part; percent-encode '@' as %40, '/' as %2F, '#' as %23, '?' as %3F"
        )
    try:
        url = urlsplit(text)
        if url.port == 0:
            return f"expected a port from 1 to 65535 in {masked!r}, got 0"
    except ValueError:
        return f"expected host:port with a port from 1 to 65535, got {masked!r}; put an IPv6 address in [ ]"
    return f"expected no '#' in {masked!r}; percent-encode it as %23" if url.fragment else ""


def _behind_authority(text: str) -> str:
    rest = text.partition("://")[2]
    end = min((found for found in map(rest.find, "/?#") if found >= 0), default=len(rest))
    return rest[end:]


def _vhost(path: str) -> str:
    return unquote(path.removeprefix("/")) or "/"


def _unsupported(scheme: str) -> str:
    listed = ", ".join(f"{name}://" for name in BROKER_SCHEMES)
    near = get_close_matches(scheme, BROKER_SCHEMES, n=1)
    hint = f"; did you mean {near[0]}://?" if near else ""
    return f"no transport for broker URLs of scheme {scheme!r} (supported: {listed}){hint}"


def _refuse_options(query: Mapping[str, str]) -> None:
    if query:
        raise ConfigurationError(f"broker URL: memory:// has no options, got {', '.join(query)}; remove them")


def _check_options(query: Mapping[str, str]) -> None:
    for name, value in query.items():
        kind = BROKER_OPTIONS.get(name)
        if kind is None:
            raise ConfigurationError(
                f"broker URL: unknown option {name!r} (known: {', '.join(BROKER_OPTIONS)}); "
                "everything else is a setting of its own"
            )
        if not _is_positive(value, kind):
            raise ConfigurationError(
                f"broker URL: expected {name} to be a positive number of seconds, got {mask_secrets(value)!r}"
            )
        if name == "heartbeat" and int(value) > MAX_HEARTBEAT:
            raise ConfigurationError(
                f"broker URL: expected heartbeat to be at most {MAX_HEARTBEAT} seconds, got {value}"
            )


def _check_store_options(scheme: str, query: Mapping[str, str]) -> None:
    for name, value in query.items():
        if scheme != TLS_STORE or name not in TLS_OPTIONS:
            raise ConfigurationError(
                f"URL of a store: unknown option {name!r} of {scheme}:// (known: {', '.join(TLS_OPTIONS)}, of {TLS_STORE}:// only);"
                " the number of a database stands behind the slash, and certificates are always verified"
            )
        if not value:
            raise ConfigurationError(
                f"URL of a store: expected {name} to name a file, got nothing; remove it"
            )


def _is_positive(value: str, kind: type[int | float]) -> bool:
    try:
        return 0 < kind(value) < float("inf")
    except ValueError:
        return False
