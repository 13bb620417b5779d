"""Settings of signed messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, cast

from pydantic import BeforeValidator, Field

from amqp_tasks.settings._base import Section, expected, fault, split_text
from amqp_tasks.settings._secrets import MASK, Secret

__all__ = ("SecuritySettings", "SigningKey")

MIN_SECRET_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORM = "keys as 'id:secret' with commas between them, a list of such texts, or a mapping of ids to secrets"
_MAKE = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key by which messages are signed.

    Attributes:
        id: what a signature names it by; known to all.
        secret: what only those know who may sign.
    """

    id: str
    secret: Secret

    @property
    def masked(self) -> str:
        """The key for people."""
        return f"{self.id}:{MASK}"

    def reveal(self) -> str:
        """The key as settings have it, for another program and for nothing that is shown or stored.

        Raises:
            ConfigurationError: this is the copy out of a pickle, which does not carry the secret.
        """
        return f"{self.id}:{self.secret.get_secret_value()}"

    def __str__(self) -> str:
        return self.masked


def _keys(value: object) -> tuple[SigningKey, ...]:
    if isinstance(value, str) and not split_text(value):
        raise fault("is empty: give keys, or leave it out")
    given = () if value is None else split_text(value)
    if isinstance(given, Mapping):
        table = cast("Mapping[object, object]", given)
        found = tuple(_key(number, *pair) for number, pair in enumerate(table.items(), 1))
    elif isinstance(given, list | tuple):
        items = cast("Iterable[object]", given)
        found = tuple(_read(number, item) for number, item in enumerate(items, 1))
    else:
        raise expected(_FORM)
    if len({key.id for key in found}) < len(found):
        raise fault("two keys have the same id; give each one of its own")
    return found


# What is wrong is told by the number of the key: where id and secret were mixed up, the id is the secret.


def _read(number: int, item: object) -> SigningKey:
    if isinstance(item, SigningKey):
        return item
    if not isinstance(item, str) or ":" not in item:
        raise expected(_FORM)
    key_id, _, secret = item.partition(":")
    return _key(number, key_id.strip(), secret.strip())


def _key(number: int, key_id: object, secret: object) -> SigningKey:
    if isinstance(secret, Secret):
        secret = secret.get_secret_value()
    if not isinstance(key_id, str) or not _ID.fullmatch(key_id):
        raise fault(
            f"the id of key {number} must be 1 to 64 letters, digits, '.', '_' or '-'; write id:secret"
        )
    if not isinstance(secret, str) or len(secret.encode("utf-8", "replace")) < MIN_SECRET_BYTES:
        raise fault(
            f"the secret of key {number} must be a text of at least {MIN_SECRET_BYTES} bytes; {_MAKE}"
        )
    return SigningKey(id=key_id, secret=Secret(secret))


class SecuritySettings(Section):
    """Signed messages."""

    signing_keys: Annotated[tuple[SigningKey, ...], BeforeValidator(_keys)] = Field(
        default=(),
        description="Keys by which messages are signed and checked, as `id:secret`: the first signs, all of them check, so that keys can be"
        " exchanged one after the other. In a text with commas between them; a list of such texts or a mapping of ids to secrets serves as well."
        f" An id is known to all; a secret has at least {MIN_SECRET_BYTES} bytes and is never shown. Callers and workers have the same keys. Empty:"
        " nothing is signed. See [Signed messages](../explanation/security.md#signed-messages).",
    )
    require_signatures: bool | None = Field(
        default=None,
        description="Whether what is not signed is refused. None: where there are `security_signing_keys`. True without keys is an error, so that no"
        " program believes itself guarded whose keys are missing. False is for the time in which not all have keys yet: unsigned messages are taken,"
        " and those whose signature does not fit are refused all the same.",
    )
