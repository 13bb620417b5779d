"""Addresses survive any user, password and virtual host, and never show the password."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqp_tasks.settings import BrokerUrl, Secret, mask_secrets

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
_ALNUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_URLS = st.builds(
    BrokerUrl,
    scheme=st.sampled_from(["amqp", "amqps"]),
    host=st.sampled_from(["mq", "10.0.0.1", "::1", "fe80::1", "mq.example.org"]),
    port=st.integers(1, 65535),
    user=_TEXT,
    password=_TEXT.map(Secret),
    vhost=_TEXT,
)


@given(_URLS)
def test_revealed_url_parses_to_itself(url: BrokerUrl) -> None:
    assert BrokerUrl.parse(url.reveal()) == url


@given(_URLS)
def test_masked_url_differs_only_in_the_password(url: BrokerUrl) -> None:
    masked = BrokerUrl.parse(url.masked)

    assert masked.password.get_secret_value() == "**"
    assert (masked.scheme, masked.host, masked.port, masked.user, masked.vhost) == (
        url.scheme,
        url.host,
        url.port,
        url.user,
        url.vhost,
    )


@given(_TEXT.map(lambda text: "canary" + "".join(text.split())), st.text(_ALNUM + " ;,'\"()", max_size=20))
def test_unencoded_password_is_masked_in_any_text(password: str, around: str) -> None:
    if "://" in password:
        return  # the start of the next URL, as far as anyone can tell

    masked = mask_secrets(f"{around} amqp://me:{password}@mq:5672/v {around}")

    assert masked == f"{around} amqp://me:**@mq:5672/v {around}"
