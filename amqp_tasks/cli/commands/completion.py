"""`amqp-tasks completion`: the script that makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from amqp_tasks.cli._globals import Command, global_options
from amqp_tasks.cli._help import command_epilog

__all__ = ("completion",)


@click.command(
    cls=Command,
    short_help="Print the completion script of a shell.",
    epilog=command_epilog(
        'eval "$(amqp-tasks completion bash)"       # in ~/.bashrc',
        'eval "$(amqp-tasks completion zsh)"        # in ~/.zshrc',
        "amqp-tasks completion fish | source        # in ~/.config/fish/config.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@global_options
def completion(shell: str) -> None:
    """Print the completion script for SHELL."""
    from amqp_tasks.cli._main import root

    script = get_completion_class(shell)
    assert script is not None, "click has a class for each choice above"
    click.echo(script(root, {}, "amqp-tasks", "_AMQP_TASKS_COMPLETE").source())
