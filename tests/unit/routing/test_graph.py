"""Topologies drawn."""

from __future__ import annotations

from amqp_routing import Binding, DestinationKind, Exchange, ExchangeType, GraphFormat, Queue, Topology, graph

_TOPOLOGY = Topology(
    exchanges=(
        Exchange("in", ExchangeType.TOPIC, alternate_exchange="rest"),
        Exchange("rest", ExchangeType.FANOUT),
    ),
    queues=(
        Queue("mail", dead_letter_exchange="", dead_letter_routing_key="mail.dead", delivery_limit=5),
        Queue("mail.dead"),
    ),
    bindings=(
        Binding("in", "mail", routing_key="mail.#"),
        Binding("in", "amq.fanout", destination_kind=DestinationKind.EXCHANGE, routing_key="#"),
    ),
)


def test_as_a_text_tree() -> None:
    assert graph(_TOPOLOGY).splitlines() == [
        "(default exchange) direct",
        "└── [mail.dead] queue mail.dead (quorum)",
        "in topic",
        "├── [mail.#] queue mail (quorum, delivery-limit=5, dead letters to (default) with key mail.dead)",
        "├── [#] exchange amq.fanout",
        "└── (else) exchange rest",
        "rest fanout",
        "amq.fanout fanout",
    ]


def test_for_graphviz() -> None:
    drawn = graph(_TOPOLOGY, GraphFormat.DOT)

    assert drawn.startswith("digraph topology {")
    assert '  "exchange:in" -> "queue:mail" [label="mail.#"];' in drawn
    assert '  "queue:mail" -> "queue:mail.dead" [label="dead letters mail.dead", style=dashed];' in drawn
    assert '  "exchange:in" -> "exchange:rest" [label="unrouted", style=dashed];' in drawn


def test_for_mermaid() -> None:
    assert graph(_TOPOLOGY, GraphFormat.MERMAID).splitlines() == [
        "flowchart LR",
        '  n0(["(default exchange)"])',
        '  n1(["in<br/>topic"])',
        '  n2(["rest<br/>fanout"])',
        '  n3(["amq.fanout<br/>fanout"])',
        '  n4["mail<br/>quorum, delivery-limit=5"]',
        '  n5["mail.dead<br/>quorum"]',
        '  n0 -->|"mail.dead"| n5',
        '  n1 -->|"mail.#"| n4',
        '  n1 -->|"#"| n3',
        '  n1 -.->|"unrouted"| n2',
        '  n4 -.->|"dead letters mail.dead"| n5',
    ]


def test_names_are_escaped() -> None:
    topology = Topology(queues=(Queue('a"<b>\\'),))

    assert '"queue:a\\"<b>\\\\"' in graph(topology, GraphFormat.DOT)
    assert '["a#quot;#lt;b#gt;' in graph(topology, GraphFormat.MERMAID)


def test_an_empty_topology_is_drawn_empty() -> None:
    assert graph(Topology()) == ""
    assert graph(Topology(), GraphFormat.MERMAID) == "flowchart LR"
