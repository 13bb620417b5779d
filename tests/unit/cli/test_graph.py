"""Drawings of a topology."""

from __future__ import annotations

import re

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue, Topology
from amqp_tasks.cli._graph import draw

TOPOLOGY = Topology(
    exchanges=(Exchange("events", type=ExchangeType.TOPIC),),
    queues=(
        Queue("hipri", dead_letter_exchange="", dead_letter_routing_key="hipri.dead"),
        Queue("hipri.dead"),
        Queue('od"d'),
    ),
    bindings=(
        Binding(source="events", destination="hipri", routing_key="mail.*"),
        Binding(source="events", destination='od"d', routing_key="#"),
    ),
)


def test_text_shows_queues_bindings_and_dead_letters() -> None:
    assert draw(TOPOLOGY, "text").splitlines() == [
        "(default exchange)",
        "  -> hipri [quorum], dead letters to hipri.dead",
        "  -> hipri.dead [quorum]",
        '  -> od"d [quorum]',
        "events (topic)",
        "  -mail.*-> hipri",
        '  -#-> od"d',
    ]


def test_dot_has_a_node_for_each_exchange_and_queue_and_an_edge_for_each_binding() -> None:
    drawn = draw(TOPOLOGY, "dot")

    assert drawn.startswith("digraph topology {")
    assert drawn.endswith("}")
    assert len(re.findall(r"shape=box", drawn)) == 3
    assert len(re.findall(r"shape=diamond", drawn)) == 1
    assert '"exchange:events" -> "queue:hipri" [label="mail.*"];' in drawn
    assert '"queue:hipri" -> "queue:hipri.dead" [label="dead letters"];' in drawn
    assert r'label="od\"d"' in drawn


def test_mermaid_names_nodes_apart_from_their_labels() -> None:
    drawn = draw(TOPOLOGY, "mermaid")

    assert drawn.splitlines()[0] == "flowchart LR"
    assert 'n0{"events"}' in drawn
    assert 'n3["od#quot;d"]' in drawn
    assert 'n0 -->|"mail.*"| n1' in drawn
    assert 'n1 -->|"dead letters"| n2' in drawn


@pytest.mark.parametrize("style", ["text", "dot", "mermaid"])
def test_an_empty_topology_can_be_drawn(style: str) -> None:
    assert draw(Topology(), style)
