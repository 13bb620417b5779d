"""`amqp-tasks topology`: the exchanges, queues and bindings of the app, as declared and as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Globals, Group, global_options, import_tasks, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import call_options, json_option
from amqp_tasks.cli._output import print_json, print_lines, print_table
from amqp_tasks.cli.commands.migrate import migrate

if TYPE_CHECKING:
    from amqp_routing import Topology
    from amqp_tasks.app._explain import CallExplanation

__all__ = ("topology",)


@click.group(cls=Group, short_help="Show, check, apply or draw exchanges, queues, bindings.")
@global_options
def topology() -> None:
    """Look at exchanges, queues and bindings, and bring the broker to hold them."""


@topology.command(epilog=command_epilog("amqp-tasks topology show", "amqp-tasks topology show --json"))
@json_option
@global_options
@pass_globals
def show(state: Globals, as_json: bool) -> None:
    """Print the app's topology; the broker is not asked."""
    declared = state.load_app().resources.topologies.with_shared
    if as_json:
        print_json(_as_data(declared))
        return
    _print_section("exchanges", ("exchange", "type", "durable"), _exchange_rows(declared))
    _print_section("queues", ("queue", "type", "arguments"), _queue_rows(declared))
    _print_section("bindings", ("source", "routing key", "destination", "kind"), _binding_rows(declared))


@topology.command(epilog=command_epilog("amqp-tasks topology check || echo 'not as declared'"))
@json_option
@global_options
@pass_globals
def check(state: Globals, as_json: bool) -> int:
    """Compare the app's topology with the broker's, changing nothing.

    Each difference is a line with its remedy; any difference is exit code 1.
    """
    with state.connected_app() as app:
        differences = app.transport.compare_topology(app.resources.topologies.with_shared)
    if as_json:
        print_json({"differences": list(differences)})
    else:
        print_lines("\n".join(differences))
        state.note(
            f"{len(differences)} differences" if differences else "the broker holds the topology as declared"
        )
    return ExitCode.FAILED if differences else ExitCode.OK


@topology.command(epilog=command_epilog("amqp-tasks topology apply"))
@json_option
@global_options
@pass_globals
def apply(state: Globals, as_json: bool) -> None:
    """Declare what the broker lacks. What exists with other arguments is an error, never deleted."""
    from amqp_tasks.transport import TopologyMode

    with state.connected_app() as app:
        wanted = app.resources.topologies.with_shared
        app.transport.ensure_topology(wanted, mode=TopologyMode.DECLARE)
    counts = {
        "exchanges": len(wanted.exchanges),
        "queues": len(wanted.queues),
        "bindings": len(wanted.bindings),
    }
    if as_json:
        print_json(counts)
    else:
        state.note("the broker now holds " + ", ".join(f"{kind}: {count}" for kind, count in counts.items()))


@topology.command(
    epilog=command_epilog(
        "amqp-tasks topology graph", "amqp-tasks topology graph --format dot | dot -Tsvg -o topology.svg"
    )
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "dot", "mermaid"]),
    default="text",
    show_default=True,
    help="What to print.",
)
@global_options
@pass_globals
def graph(state: Globals, style: str) -> None:
    """Draw the topology: as a tree, for Graphviz, or for Mermaid."""
    from amqp_tasks.cli._graph import draw

    click.echo(draw(state.load_app().topology, style))


@topology.command(
    epilog=command_epilog(
        "amqp-tasks topology explain proj.add", "amqp-tasks topology explain proj.add --queue hipri --json"
    )
)
@click.argument("task_name")
@call_options
@json_option
@global_options
@pass_globals
def explain(
    state: Globals, /, task_name: str, args: list[Any], kwargs: dict[str, Any], as_json: bool, **options: Any
) -> None:
    """Say where a call of TASK_NAME would go, and why; nothing is sent."""
    from amqp_tasks.app._explain import explain_call

    app = state.load_app()
    import_tasks(app)
    explained = explain_call(app, task_name, args, kwargs, options)
    if as_json:
        print_json(_explained_as_data(explained))
    else:
        print_lines(str(explained))


topology.add_command(migrate)


def _explained_as_data(explained: CallExplanation) -> dict[str, Any]:
    found = explained.explanation
    checks = found.decision.checks if found.decision else ()
    return {
        "call_options": dict(explained.call_options),
        "task_options": dict(explained.task_options),
        "routers": [{"router": c.router, "answered": c.answered, "reason": c.reason} for c in checks],
        "exchange": found.exchange,
        "routing_key": found.routing_key,
        "queues": list(found.queue_names),
        "is_exact": found.is_exact,
    }


def _as_data(declared: Topology) -> dict[str, Any]:
    return {
        "exchanges": [
            {"name": name, "type": kind, "durable": durable}
            for name, kind, durable in _exchange_rows(declared)
        ],
        "queues": [
            {"name": queue.name, "type": str(queue.type), "arguments": queue.declared_arguments()}
            for queue in declared.queues
        ],
        "bindings": [
            {"source": source, "routing_key": key, "destination": destination, "kind": kind}
            for source, key, destination, kind in _binding_rows(declared)
        ],
    }


def _print_section(title: str, headings: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    click.echo(f"{title}:" if rows else f"{title}: none")
    if rows:
        print_table(headings, rows)
    click.echo()


def _exchange_rows(declared: Topology) -> list[tuple[object, ...]]:
    return [(exchange.name, str(exchange.type), exchange.durable) for exchange in declared.exchanges]


def _queue_rows(declared: Topology) -> list[tuple[object, ...]]:
    return [
        (queue.name, str(queue.type), _arguments(queue.declared_arguments())) for queue in declared.queues
    ]


def _binding_rows(declared: Topology) -> list[tuple[object, ...]]:
    return [(b.source, b.routing_key, b.destination, str(b.destination_kind)) for b in declared.bindings]


def _arguments(arguments: dict[str, Any]) -> str:
    return " ".join(f"{name}={json.dumps(value, default=str)}" for name, value in sorted(arguments.items()))
