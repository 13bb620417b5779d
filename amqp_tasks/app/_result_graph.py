"""A workflow's results as a graph: data, a tree for the terminal, DOT and Mermaid."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from amqp_tasks.errors import AmqpTasksError

if TYPE_CHECKING:
    from amqp_tasks.app._group_result import GroupResult
    from amqp_tasks.app._result import AsyncResult

__all__ = ("ResultGraph",)

_COLOURS = {"SUCCESS": "palegreen", "FAILURE": "salmon", "REVOKED": "lightgrey"}


@dataclass(frozen=True, slots=True)
class ResultGraph:
    """Which task followed which.

    Attributes:
        states: of each id; `UNKNOWN` where this process cannot know it, as of tasks that others sent.
        names: of each id, where it is known which task it is.
        edges: pairs of ids: first, then what followed it.
    """

    states: dict[str, str]
    names: dict[str, str]
    edges: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, result: AsyncResult[Any] | GroupResult[Any]) -> Self:
        """All that hangs together with `result`: what came before it, and what followed any of these."""
        states: dict[str, str] = {}
        names: dict[str, str] = {}
        edges: dict[tuple[str, str], None] = {}
        # What came before goes first: it is known which tasks these are, of children it is not.
        earlier: deque[Any] = deque([result])
        later: deque[Any] = deque()
        while earlier or later:
            for single in _singles((earlier or later).popleft()):
                if single.id in states:
                    continue
                states[single.id] = _state(single)
                if (name := _name(single)) is not None:
                    names[single.id] = name
                edges |= {(before.id, single.id): None for before in _singles(single.parent)}
                earlier.append(single.parent)
                children = _children(single)
                edges |= {(single.id, child.id): None for child in children}
                later += children
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


def _singles(result: Any) -> Iterator[AsyncResult[Any]]:
    """The single results that it stands for."""
    if result is None:
        return
    members: Any = getattr(result, "results", None)
    if members is None:
        yield result
    else:
        for member in members:
            yield from _singles(member)


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


def _children(result: AsyncResult[Any]) -> list[AsyncResult[Any]]:
    try:
        return result.children
    except AmqpTasksError:
        return []
