"""Random workflows, and what they must come to: a model that knows nothing of messages.

A tree of steps, each of which gets the total of what came before and adds a number to it. A step may fail, retry once,
have its process killed once, or be revoked before it runs; the model says what the whole gives, and which errback is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from amqp_tasks import chain, chord, group

__all__ = ("Node", "failures_of", "signature_of", "value_of", "workflows")


@dataclass(frozen=True)
class Node:
    """A part of a workflow.

    Attributes:
        kind: `step`, `fail`, `again`, `die`, `revoked`, `chain`, `group`, `chord` or `complete`: a group whose members' outcomes
            come to `tally`.
        number: what a step adds.
        parts: of what is composed; the last one of a chord is its body.
    """

    kind: str
    number: int = 0
    parts: tuple[Node, ...] = ()

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(map(repr, self.parts)) or self.number})"


class Failed(Exception):
    """The part does not give a value."""


def workflows(kinds: tuple[str, ...] = ("step", "step", "step", "again", "fail")) -> st.SearchStrategy[Node]:
    """Trees with leaves of these kinds."""
    leaves = st.builds(Node, st.sampled_from(kinds), st.integers(0, 9))

    def composed(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        return st.one_of(
            st.lists(parts, min_size=1, max_size=3).map(lambda found: Node("chain", parts=tuple(found))),
            st.lists(parts, min_size=1, max_size=4).map(lambda found: Node("group", parts=tuple(found))),
            st.lists(parts, min_size=1, max_size=4).map(lambda found: Node("chord", parts=tuple(found))),
            st.lists(parts, min_size=1, max_size=3).map(lambda found: Node("complete", parts=tuple(found))),
        )

    return st.recursive(leaves, composed, max_leaves=9)


def total(value: Any) -> int:
    """As `workflow_app.total`."""
    return sum(map(total, value)) if isinstance(value, list) else int(value)


def value_of(node: Node, given: Any) -> Any:
    """What a part gives for what it is given.

    Raises:
        Failed: a step of it that must not fail does.
    """
    match node.kind:
        case "fail" | "revoked":
            raise Failed
        case "chain":
            for part in node.parts:
                given = value_of(part, given)
            return given
        case "group":
            return _all(node.parts, given)
        case "chord":
            *header, body = node.parts
            return value_of(body, _all(tuple(header), given))
        case "complete":
            return sum(1000 if value is None else total(value) for value in _each(node.parts, given))
        case _:
            return total(given) + node.number


def _all(parts: tuple[Node, ...], given: Any) -> list[Any]:
    values = _each(parts, given)
    if None in values:
        raise Failed
    return values


def _each(parts: tuple[Node, ...], given: Any) -> list[Any]:
    """What the members of a group give; None for those that fail."""
    flat = [inner for part in parts for inner in (part.parts if part.kind == "group" else (part,))]
    while any(part.kind == "group" for part in flat):
        flat = [inner for part in flat for inner in (part.parts if part.kind == "group" else (part,))]
    return [None if failures_of(part, given) else value_of(part, given) for part in flat]


def failures_of(node: Node, given: Any = 0) -> bool:
    """Whether the whole fails."""
    try:
        value_of(node, given)
    except Failed:
        return True
    return False


def signature_of(node: Node, leaf: Callable[[Node], Any]) -> Any:
    """The workflow."""
    parts = [signature_of(part, leaf) for part in node.parts]
    match node.kind:
        case "chain":
            return chain(*parts)
        case "group":
            return group(parts)
        case "chord":
            return chord(parts[:-1], parts[-1])
        case "complete":
            return group(parts).on_complete(leaf(Node("tally")))
        case _:
            return leaf(node)
