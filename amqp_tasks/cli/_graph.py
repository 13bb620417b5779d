"""A topology as a drawing: text tree, Graphviz dot or Mermaid. Pure functions of the topology."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_routing import Binding, Topology

__all__ = ("draw",)

_DEFAULT_EXCHANGE = "(default exchange)"


def draw(topology: Topology, style: str) -> str:
    """The drawing as text.

    Args:
        topology: what to draw.
        style: `text`, `dot` or `mermaid`.
    """
    painters: dict[str, Callable[[Topology], Iterator[str]]] = {
        "text": _text,
        "dot": _dot,
        "mermaid": _mermaid,
    }
    return "\n".join(painters[style](topology))


def _text(topology: Topology) -> Iterator[str]:
    yield _DEFAULT_EXCHANGE
    for queue in topology.queues:
        yield f"  -> {printable(queue.name)} [{queue.type}]{_dead_letters(queue)}"
    for exchange in topology.exchanges:
        yield f"{printable(exchange.name)} ({exchange.type})"
        for binding in topology.bindings:
            if binding.source == exchange.name:
                yield f"  -{printable(binding.routing_key)}-> {printable(binding.destination)}"


def _dead_letters(queue: object) -> str:
    key = getattr(queue, "dead_letter_routing_key", None)
    return f", dead letters to {printable(key)}" if key else ""


def _dot(topology: Topology) -> Iterator[str]:
    yield "digraph topology {"
    yield "  rankdir=LR;"
    for exchange in topology.exchanges:
        yield f"  {_quoted(_node('exchange', exchange.name))} [shape=diamond, label={_quoted(exchange.name)}];"
    for queue in topology.queues:
        yield f"  {_quoted(_node('queue', queue.name))} [shape=box, label={_quoted(queue.name)}];"
    for source, label, target in _edges(topology):
        yield f"  {_quoted(source)} -> {_quoted(target)} [label={_quoted(label)}];"
    yield "}"


def _mermaid(topology: Topology) -> Iterator[str]:
    names = _mermaid_names(topology)
    yield "flowchart LR"
    for exchange in topology.exchanges:
        yield f"  {names[_node('exchange', exchange.name)]}{{{_escaped(exchange.name)}}}"
    for queue in topology.queues:
        yield f"  {names[_node('queue', queue.name)]}[{_escaped(queue.name)}]"
    for source, label, target in _edges(topology):
        arrow = f"-->|{_escaped(label)}|" if label else "-->"
        yield f"  {names.get(source, source)} {arrow} {names.get(target, target)}"


def _mermaid_names(topology: Topology) -> dict[str, str]:
    nodes = [_node("exchange", exchange.name) for exchange in topology.exchanges]
    nodes += [_node("queue", queue.name) for queue in topology.queues]
    return {node: f"n{index}" for index, node in enumerate(nodes)}


def _edges(topology: Topology) -> Iterator[tuple[str, str, str]]:
    """Source node, label, target node: of bindings, then of dead-lettering through the default exchange."""
    known = {_node("queue", queue.name) for queue in topology.queues}
    known |= {_node("exchange", exchange.name) for exchange in topology.exchanges}
    for binding in topology.bindings:
        edge = _node("exchange", binding.source), binding.routing_key, _destination(binding)
        # Bindings of the broker's own amq.* exchanges are drawn by the text form only.
        if edge[0] in known:
            yield edge
    for queue in topology.queues:
        target = _node("queue", queue.dead_letter_routing_key or "")
        if queue.dead_letter_exchange == "" and target in known:
            yield _node("queue", queue.name), "dead letters", target


def _destination(binding: Binding) -> str:
    return _node(str(binding.destination_kind), binding.destination)


def _node(kind: str, name: str) -> str:
    return f"{kind}:{name}"


def _quoted(text: str) -> str:
    return json.dumps(printable(text))


def _escaped(text: str) -> str:
    return '"' + printable(text).replace('"', "#quot;") + '"'
