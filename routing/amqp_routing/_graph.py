"""A topology drawn: as a text tree, for Graphviz (DOT), for Mermaid."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import assert_never

from amqp_routing._binding import Binding, DestinationKind
from amqp_routing._exchange import DEFAULT_EXCHANGE, Exchange
from amqp_routing._queue import Queue
from amqp_routing._topology import Topology

__all__ = ("GraphFormat", "graph")


class GraphFormat(StrEnum):
    """How `graph` draws."""

    TEXT = "text"
    DOT = "dot"
    MERMAID = "mermaid"


def graph(topology: Topology, graph_format: GraphFormat = GraphFormat.TEXT) -> str:
    """The topology as text in that format; the same topology always gives the same text.

    The binding of each queue to the default exchange by its name is drawn only where nothing else leads to the queue.
    """
    match graph_format:
        case GraphFormat.TEXT:
            lines = _text(topology)
        case GraphFormat.DOT:
            lines = _dot(topology)
        case GraphFormat.MERMAID:
            lines = _mermaid(topology)
        case _:
            assert_never(graph_format)
    return "\n".join(lines)


def _exchanges(topology: Topology) -> Iterator[Exchange]:
    """Those of the topology, and the broker's own that something leads from or to."""
    declared = {exchange.name for exchange in topology.exchanges}
    yield from topology.exchanges
    named = [b.source for b in topology.bindings]
    named += [b.destination for b in topology.bindings if b.destination_kind is DestinationKind.EXCHANGE]
    named += [e.alternate_exchange for e in topology.exchanges if e.alternate_exchange]
    named += [q.dead_letter_exchange for q in topology.queues if q.dead_letter_exchange]
    for name in dict.fromkeys(named):
        exchange = topology.exchange(name)
        if exchange is not None and name not in declared:
            yield exchange


def _only_by_name(topology: Topology) -> Iterator[Queue]:
    bound = {b.destination for b in topology.bindings if b.destination_kind is DestinationKind.QUEUE}
    return (queue for queue in topology.queues if queue.name not in bound)


def _condition(binding: Binding) -> str:
    parts = [binding.routing_key] if binding.routing_key else []
    parts += [f"{key}={value!r}" for key, value in binding.arguments.items()]
    return ", ".join(parts)


def _dead_letter_key(queue: Queue) -> str:
    return "" if queue.dead_letter_routing_key is None else queue.dead_letter_routing_key


def _queue_facts(queue: Queue) -> str:
    facts = [queue.type.value]
    facts += [f"{name[2:]}={value}" for name, value in queue.declared_arguments().items() if _is_fact(name)]
    return ", ".join(facts)


def _is_fact(name: str) -> bool:
    return name != "x-queue-type" and not name.startswith("x-dead-letter-")


# Text


def _text(topology: Topology) -> Iterator[str]:
    by_name = tuple(_only_by_name(topology))
    if by_name:
        yield "(default exchange) direct"
        yield from _branches([_queue_line(queue.name, queue.name, queue) for queue in by_name])
    for exchange in _exchanges(topology):
        flags = "".join(f", {flag}" for flag in ("internal", "auto_delete") if getattr(exchange, flag)) + (
            "" if exchange.durable else ", not durable"
        )
        yield f"{exchange.name} {exchange.type}{flags}"
        yield from _branches(list(_text_children(topology, exchange)))


def _text_children(topology: Topology, exchange: Exchange) -> Iterator[str]:
    for binding in topology.bindings:
        if binding.source != exchange.name:
            continue
        queue = topology.queue(binding.destination)
        if binding.destination_kind is DestinationKind.QUEUE and queue is not None:
            yield _queue_line(_condition(binding), binding.destination, queue)
        else:
            yield f"[{_condition(binding)}] exchange {binding.destination}"
    if exchange.alternate_exchange is not None:
        yield f"(else) exchange {exchange.alternate_exchange or '(default)'}"


def _queue_line(condition: str, name: str, queue: Queue) -> str:
    dead = ""
    if queue.dead_letter_exchange is not None:
        where = queue.dead_letter_exchange or "(default)"
        key = queue.dead_letter_routing_key
        dead = f", dead letters to {where}" + ("" if key is None else f" with key {key}")
    return f"[{condition}] queue {name} ({_queue_facts(queue)}{dead})"


def _branches(children: list[str]) -> Iterator[str]:
    for index, child in enumerate(children):
        yield f"{'└──' if index == len(children) - 1 else '├──'} {child}"


# DOT and Mermaid share the edges


def _edges(topology: Topology) -> Iterator[tuple[str, str, str, bool]]:
    """(from, to, label, is a way for messages nobody took or wanted); nodes as `kind:name`."""
    for queue in _only_by_name(topology):
        yield f"exchange:{DEFAULT_EXCHANGE}", f"queue:{queue.name}", queue.name, False
    for binding in topology.bindings:
        target = f"{binding.destination_kind.value}:{binding.destination}"
        yield f"exchange:{binding.source}", target, _condition(binding), False
    for exchange in topology.exchanges:
        if exchange.alternate_exchange is not None:
            yield f"exchange:{exchange.name}", f"exchange:{exchange.alternate_exchange}", "unrouted", True
    for queue in topology.queues:
        yield from _dead_letter_edges(topology, queue)


def _dead_letter_edges(topology: Topology, queue: Queue) -> Iterator[tuple[str, str, str, bool]]:
    name, key = queue.dead_letter_exchange, queue.dead_letter_routing_key
    if name is None:
        return
    label = f"dead letters {_dead_letter_key(queue)}".rstrip()
    if name == DEFAULT_EXCHANGE and key is not None and topology.queue(key) is not None:
        yield f"queue:{queue.name}", f"queue:{key}", label, True
    else:
        yield f"queue:{queue.name}", f"exchange:{name}", label, True


def _nodes(topology: Topology) -> Iterator[tuple[str, str, bool]]:
    """(node, label, is a queue); the default exchange only where an edge needs it."""
    edges = tuple(_edges(topology))
    drawn = {exchange.name for exchange in _exchanges(topology)}
    if any("exchange:" in edge[:2] for edge in edges) and DEFAULT_EXCHANGE not in drawn:
        yield "exchange:", "(default exchange)", False
    for exchange in _exchanges(topology):
        yield f"exchange:{exchange.name}", f"{exchange.name or '(default exchange)'}\n{exchange.type}", False
    for queue in topology.queues:
        yield f"queue:{queue.name}", f"{queue.name}\n{_queue_facts(queue)}", True


def _dot(topology: Topology) -> Iterator[str]:
    yield "digraph topology {"
    yield "  rankdir=LR;"
    for node, label, is_queue in _nodes(topology):
        yield f"  {_dot_text(node)} [label={_dot_text(label)}, shape={'box' if is_queue else 'ellipse'}];"
    for source, target, label, is_fallback in _edges(topology):
        style = ", style=dashed" if is_fallback else ""
        yield f"  {_dot_text(source)} -> {_dot_text(target)} [label={_dot_text(label)}{style}];"
    yield "}"


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _mermaid(topology: Topology) -> Iterator[str]:
    yield "flowchart LR"
    nodes = tuple(_nodes(topology))
    # Mermaid's identifiers take no dots or spaces; numbers do.
    identifiers = {node: f"n{index}" for index, (node, _, _) in enumerate(nodes)}
    for node, label, is_queue in nodes:
        text = _mermaid_text(label)
        yield f"  {identifiers[node]}" + (f"[{text}]" if is_queue else f"([{text}])")
    for source, target, label, is_fallback in _edges(topology):
        arrow = "-.->" if is_fallback else "-->"
        shown = f"|{_mermaid_text(label)}|" if label else ""
        yield f"  {identifiers[source]} {arrow}{shown} {identifiers[target]}"


def _mermaid_text(text: str) -> str:
    for character, code in (("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("\n", "<br/>")):
        text = text.replace(character, code)
    return f'"{text}"'
