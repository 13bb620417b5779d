"""The reference page of the command line is what the commands say.

`python tests/unit/docs/test_cli_reference.py` writes the page anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from amqp_tasks.cli import ExitCode
from amqp_tasks.cli._globals import GlobalOption
from amqp_tasks.cli._main import root

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"

HEAD = """\
# Command line

<!-- Written by `python tests/unit/docs/test_cli_reference.py` from the commands themselves. -->

`amqp-tasks [OPTIONS] COMMAND [ARGS]…`, or `python -m amqp_tasks`, or `app.start()` in a script. Data goes to stdout, logs,
notes and errors to stderr. An error is one line with its remedy; `--traceback` shows where it came from.
"""


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render()


def render() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    context = click.Context(root, info_name="amqp-tasks")
    yield HEAD
    yield "## Global options\n\nThey may stand before or after the command.\n"
    yield from _options(context, root, shared=True)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        yield from _command(click.Context(command, info_name=name, parent=context), command, level=2)
    yield "## Exit codes\n\n| code | meaning |\n|---|---|"
    yield from (f"| {code.value} | {code.description} |" for code in ExitCode)


def _command(context: click.Context, command: click.Command, *, level: int) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"{'#' * level} {context.command_path.removeprefix('amqp-tasks ')}\n"
    yield f"```text\n{context.command_path} {usage}\n```\n"
    yield re.sub(r"\n +", "\n", (command.help or "").strip()) + "\n"
    yield from _options(context, command, shared=False)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _command(click.Context(child, info_name=name, parent=context), child, level=level + 1)
    else:
        yield _examples(command)


def _options(context: click.Context, command: click.Command, *, shared: bool) -> Iterator[str]:
    records = [
        parameter.get_help_record(context)
        for parameter in command.params
        if isinstance(parameter, click.Option) and isinstance(parameter, GlobalOption) is shared
    ]
    shown = [record for record in records if record is not None]
    if shown:
        yield "| option | |\n|---|---|"
        yield from (f"| `{_cell(option)}` | {_cell(text)} |" for option, text in shown)
        yield ""


def _examples(command: click.Command) -> str:
    text = (command.epilog or "").split("Examples:\n", 1)[1].split("\n\n", 1)[0]
    return "```sh\n" + "\n".join(line.strip() for line in text.splitlines()) + "\n```\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(render())
