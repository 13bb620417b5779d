"""Keys as settings: their forms, and that no secret is ever shown."""

from __future__ import annotations

import json
import pickle
from contextlib import nullcontext
from typing import Any

import pytest

from amqp_tasks.errors import ConfigurationError, MalformedMessage, SettingsError
from amqp_tasks.message import Properties
from amqp_tasks.settings import Conf, Secret
from amqp_tasks.settings._security import SigningKey
from amqp_tasks.transport._connect import key_ring

A, B = "a" * 32, "b" * 32
FORMS: dict[str, Any] = {
    "text": f"new:{A}, old:{B}",
    "list": [f"new:{A}", f"old:{B}"],
    "mapping": {"new": A, "old": B},
    "secrets": {"new": Secret(A), "old": Secret(B)},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_keys_keep_their_order_in_every_form(form: Any) -> None:
    keys = Conf(environ={}, security_signing_keys=form).settings().security.signing_keys

    assert [(key.id, key.secret.get_secret_value()) for key in keys] == [("new", A), ("old", B)]


@pytest.mark.parametrize("text", [f"new:{A},old:{B}", json.dumps({"new": A, "old": B})])
def test_keys_come_from_the_environment(text: str) -> None:
    keys = Conf(environ={"AMQP_TASKS_SECURITY_SIGNING_KEYS": text}).settings().security.signing_keys

    assert [key.id for key in keys] == ["new", "old"]


CANARY = "s3cr3t-canary"
WRONG: dict[str, tuple[Any, str]] = {
    "too short": ({"k": CANARY}, "the secret of key 1 must be a text of at least 32 bytes; make one with"),
    "no id": (CANARY * 4, "expected keys as 'id:secret'"),
    "turned round": (f"{CANARY * 4}:new", "the secret of key 1 must be"),
    "an id with blanks": ({f"{CANARY} x": A}, "the id of key 1 must be"),
    "twice the same id": ([f"k:{CANARY * 4}", f"k:{A}"], "two keys have the same id"),
    "an empty text": (" , ", "security_signing_keys: is empty: give keys, or leave it out"),
    "a number": ({"a": A, "k": 7}, "the secret of key 2 must be"),
    "of another type": (7, "expected keys as 'id:secret'"),
}


@pytest.mark.parametrize(("value", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_key_is_told_without_showing_it(value: Any, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Conf(environ={}, security_signing_keys=value).settings()

    assert said in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("nothing", [None, ()], ids=str)
def test_no_keys_may_be_said(nothing: Any) -> None:
    assert Conf(environ={}, security_signing_keys=nothing).settings().security.signing_keys == ()


def test_an_empty_variable_is_no_way_to_have_no_keys() -> None:
    with pytest.raises(SettingsError, match="security_signing_keys: is empty: give keys, or leave it out"):
        Conf(environ={"AMQP_TASKS_SECURITY_SIGNING_KEYS": ""}).settings()


WITHOUT: dict[str, dict[str, Any]] = {
    "left out": {},
    "None": {"security_signing_keys": None},
    "an empty list": {"security_signing_keys": []},
    "an empty mapping": {"security_signing_keys": {}},
}


@pytest.mark.parametrize("keys", WITHOUT.values(), ids=WITHOUT)
def test_who_requires_signatures_must_give_keys(keys: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"with no key in security_signing_keys, so that .*; give keys"):
        Conf(environ={}, security_require_signatures=True, **keys).settings()

    assert Conf(environ={}, security_require_signatures=False, **keys).settings().security.signing_keys == ()
    Conf(environ={}, security_require_signatures=True, security_signing_keys={"k": A}).settings()


@pytest.mark.parametrize(("said", "requires"), [(None, True), (True, True), (False, False)])
def test_keys_alone_have_unsigned_messages_refused(said: bool | None, requires: bool) -> None:
    conf = Conf(environ={}, security_signing_keys={"k": A}, security_require_signatures=said)

    ring = key_ring(conf.settings().security)

    assert ring is not None
    with pytest.raises(MalformedMessage, match="not signed") if requires else nullcontext():
        ring.check(Properties(), b"", "task")


def test_settings_without_keys_are_handed_on_as_they_are() -> None:
    conf = Conf(environ={})

    again = Conf(environ={}, **conf.as_dict(masked=False))

    assert again.settings() == conf.settings()


def test_a_key_shows_its_id_only() -> None:
    conf = Conf(environ={}, security_signing_keys={"k": CANARY * 4})
    key = conf.settings().security.signing_keys[0]

    assert conf.as_dict()["security_signing_keys"] == ["k:**"]
    assert CANARY not in repr(key) + str(key) + repr(conf.settings()) + str(conf.as_dict()) + conf.humanize()
    copied: SigningKey = pickle.loads(pickle.dumps(key))
    with pytest.raises(ConfigurationError):
        copied.reveal()


def test_keys_that_are_handed_on_are_the_same() -> None:
    conf = Conf(environ={}, security_signing_keys=FORMS["mapping"])

    again = Conf(environ={}, **conf.as_dict(masked=False))

    assert again.settings() == conf.settings()
