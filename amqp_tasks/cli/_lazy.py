"""A click group that imports a sub-command only when it is used, and knows what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from amqp_tasks.cli._celery import COMMANDS
from amqp_tasks.cli._globals import Group

__all__ = ("LazyGroup",)


class LazyGroup(Group):
    """A group over `lazy`: command name to `module:attribute`.

    The worker's start is measured, so that it must not pay for what other commands import.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order in which they were given."""
        return [*self._lazy, *(name for name in super().list_commands(ctx) if name not in self._lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None when there is none of that name."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module_name, _, attribute = self._lazy[cmd_name].partition(":")
        command = getattr(import_module(module_name), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name in the error.

        Raises:
            click.UsageError: no such command.
        """
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(f"no such command {name!r}, {self._remedy(ctx, name)}", ctx)
        return super().resolve_command(ctx, args)

    def _remedy(self, ctx: click.Context, name: str) -> str:
        if ctx.parent is None and name in COMMANDS:
            return f"which is Celery's: {COMMANDS[name]}"
        known = self.list_commands(ctx)
        near = difflib.get_close_matches(name, known, n=1)
        return f"did you mean {near[0]!r}?" if near else "choose from " + ", ".join(known)
