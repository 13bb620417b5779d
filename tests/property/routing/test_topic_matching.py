"""Topic matching against the definition written down naively."""

from __future__ import annotations

from hypothesis import given, settings

from amqp_routing import topic_matches
from support.topologies import routing_keys, topic_patterns


def _naive(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_naive(pattern[1:], words[count:]) for count in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _naive(pattern[1:], words[1:])


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


@settings(max_examples=500)
@given(pattern=topic_patterns, key=routing_keys)
def test_topic_matching_equals_its_definition(pattern: str, key: str) -> None:
    assert topic_matches(pattern, key) == _naive(_words(pattern), _words(key))
