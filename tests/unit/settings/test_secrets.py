"""Text that others wrote is scrubbed."""

from __future__ import annotations

import pytest

from amqp_tasks.settings import Secret, mask_secrets

CANARY = "s3cr3t-canary"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"cannot reach amqp://me:{CANARY}@mq:5672//", "cannot reach amqp://me:**@mq:5672//"),
        (f"redis://:{CANARY}@cache/0", "redis://:**@cache/0"),
        (f"db+postgresql://u:{CANARY}@db/x", "db+postgresql://u:**@db/x"),
        (f"amqp://a:{CANARY}@x;amqp://b:{CANARY}@y", "amqp://a:**@x;amqp://b:**@y"),
        (f"amqp://a:{CANARY}@x,amqp://b:{CANARY}@y", "amqp://a:**@x,amqp://b:**@y"),
        (f"['amqp://a:{CANARY}@x', 'amqp://b:{CANARY}@y']", "['amqp://a:**@x', 'amqp://b:**@y']"),
        (f"amqp://me@corp:{CANARY}@mq", "amqp://me@corp:**@mq"),
        (f"amqp://me:x@{CANARY}/y@mq", "amqp://me:**@mq"),
        (f"""amqp://me:it's"{CANARY}@mq""", "amqp://me:**@mq"),
        (f"password={CANARY} host=mq", "password=** host=mq"),
        (f"{{'keyfile_password': '{CANARY}', 'port': 1}}", "{'keyfile_password': **, 'port': 1}"),
        (f'{{"client-secret":"{CANARY}"}}', '{"client-secret":**}'),
        (f"PASSWORD: {CANARY}", "PASSWORD: **"),
    ],
)
def test_passwords_are_masked(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "amqp://guest@localhost:5672//",
        "http://127.0.0.1:15672/api/queues",
        "connection refused at 10.0.0.1:5672, mail ops@example.org",
        "wrong password for user me",
        "",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert mask_secrets(text) == text


def test_known_secrets_are_masked_wherever_they_stand() -> None:
    assert mask_secrets(f"login with {CANARY} refused", Secret(CANARY), Secret("")) == "login with ** refused"


def test_secret_equals_by_its_value_and_is_false_when_empty() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != "a"
    assert (bool(Secret("a")), bool(Secret(""))) == (True, False)
