"""A workflow's results as a graph: data, a tree for the terminal, DOT and Mermaid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from amqp_tasks.errors import AmqpTasksError

if TYPE_CHECKING:
    from amqp_tasks.app._result import AsyncResult

__all__ = ("ResultGraph",)

_COLOURS = {"SUCCESS": "palegreen", "FAILURE": "salmon", "REVOKED": "lightgrey"}


@dataclass(frozen=True, slots=True)
class ResultGraph:
    """Which task followed which.

    Attributes:
        states: of each id; `UNKNOWN` where this process cannot know it.
        names: of each id, where it is known which task it is.
        edges: pairs of ids: first, then what followed it.
    """

    states: dict[str, str]
    names: dict[str, str]
    edges: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, result: AsyncResult[Any]) -> Self:
        """All that hangs together with `result`: what came before it, and what followed any of these."""
        states: dict[str, str] = {}
        names: dict[str, str] = {}
        edges: dict[tuple[str, str], None] = {}
        waiting: list[Any] = [result]
        seen: set[str] = set()
        while waiting:
            each = waiting.pop()
            if each.id in seen:
                continue
            seen.add(each.id)
            if not hasattr(each, "results"):
                states[each.id] = _state(each)
                if (name := _name(each)) is not None:
                    names[each.id] = name
            before = _singles(each.parent)
            for single in _singles(each):
                edges |= {(earlier.id, single.id): None for earlier in before}
                waiting.append(single)
            waiting += before
            for child in _children(each):
                edges[each.id, child.id] = None
                waiting.append(child)
        return cls(states, names, tuple(edges))

    @property
    def roots(self) -> list[str]:
        """Ids that follow nothing."""
        later = {after for _, after in self.edges}
        return [each for each in self.states if each not in later]

    def text(self) -> str:
        """A tree, a line for each task; one that follows several stands below each, and what follows it below the first."""
        lines: list[str] = []
        drawn: set[str] = set()
        after: dict[str, list[str]] = {}
        for earlier, later in self.edges:
            after.setdefault(earlier, []).append(later)
        waiting = [(root, 0) for root in reversed(self.roots)]
        while waiting:
            each, depth = waiting.pop()
            following = after.get(each, [])
            lines.append(f"{'  ' * depth}{self._label(each)}{' …' if each in drawn and following else ''}")
            if each not in drawn:
                drawn.add(each)
                waiting += [(later, depth + 1) for later in reversed(following)]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    def dot(self) -> str:
        """For Graphviz."""
        nodes = [
            f'  "{each}" [label="{self._label(each)}", style=filled, fillcolor={_COLOURS.get(state, "white")}];'
            for each, state in self.states.items()
        ]
        edges = [f'  "{before}" -> "{after}";' for before, after in self.edges]
        return "\n".join(["digraph workflow {", "  node [shape=box];", *nodes, *edges, "}"])

    def mermaid(self) -> str:
        """For Mermaid, a flowchart."""
        number = {each: f"t{index}" for index, each in enumerate(self.states)}
        nodes = [f'  {number[each]}["{self._label(each)}"]' for each in self.states]
        edges = [f"  {number[before]} --> {number[after]}" for before, after in self.edges]
        return "\n".join(["flowchart TD", *nodes, *edges])

    def _label(self, each: str) -> str:
        shown = f"{self.names[each]} " if each in self.names else ""
        plain = "".join(
            sign if sign.isprintable() and sign not in '"[]<>' else "?" for sign in f"{shown}{each}"
        )
        return f"{plain}: {self.states[each]}"


def _singles(result: Any) -> list[Any]:
    if result is None:
        return []
    members = getattr(result, "results", None)
    return [result] if members is None else [single for member in members for single in _singles(member)]


def _state(result: AsyncResult[Any]) -> str:
    try:
        return result.state
    except AmqpTasksError:
        return "UNKNOWN"


def _name(result: AsyncResult[Any]) -> str | None:
    if result.task is not None:
        return result.task.name
    try:
        return result.name
    except AmqpTasksError:
        return None


def _children(result: Any) -> Iterator[Any]:
    try:
        return iter(result.children if not hasattr(result, "results") else ())
    except AmqpTasksError:
        return iter(())
