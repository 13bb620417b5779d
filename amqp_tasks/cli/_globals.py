"""The options that every command takes, before or after its name, and the app that they lead to."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from amqp_tasks.errors import AmqpTasksError, AppNotFound

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("Command", "Globals", "Group", "global_options", "import_tasks", "pass_globals")

F = TypeVar("F", bound=Callable[..., object])


@dataclass(slots=True)
class Globals:
    """What the global options said. Written by their callbacks while click parses, read by commands."""

    app: App | None = None
    """The app of `app.start()`; `-A` wins over it."""
    app_spec: str | None = None
    broker: str | None = None
    config: str | None = None
    color: bool | None = None
    quiet: bool = False
    traceback: bool = False

    def load_app(self, *, required: bool = False) -> App:
        """The app of `-A`, of `app.start()`, of AMQP_TASKS_APP or of ./pyproject.toml, with -b and --config applied.

        Args:
            required: without any of them it is an error; else a bare app stands in, configured by the environment,
                which is enough for a command that only needs the broker.

        Raises:
            AppNotFound: nothing is named, or what is named holds no app; an import error inside it is shown.
            SettingsError: a setting is wrong.
        """
        _start_directory_on_path()
        app = self._find_app(required)
        if self.config is not None:
            with _import_errors_shown(f"the configuration {self.config!r}"):
                app.config_from_object(self.config)
        if self.broker is not None:
            app.conf.update(broker_url=self.broker)
        return app

    @contextmanager
    def connected_app(self) -> Generator[App]:
        """The app of `load_app`, connected to its broker and closed at the end.

        A person waits at the command line: each address gets one `broker_connection_timeout`, not the patience of a
        publish.

        Raises:
            AppNotFound, SettingsError: see `load_app`.
            BrokerConnectionError: it cannot be reached, or refuses.
        """
        app = self.load_app()
        try:
            broker = app.settings.broker
            app.transport.open(timeout=broker.connection_timeout * len(broker.url))
            yield app
        finally:
            app.close()

    def _find_app(self, required: bool) -> App:
        from amqp_tasks.app import App
        from amqp_tasks.app._lookup import configured_spec, find_app

        if self.app_spec is None and self.app is not None:
            return self.app
        spec = self.app_spec or configured_spec()
        if spec is None and not required:
            return App("amqp-tasks")
        with _import_errors_shown(f"the app {spec!r}"):
            return find_app(spec)

    def note(self, text: str) -> None:
        """Say something on stderr that is no data and no error; `-q` hides it."""
        if not self.quiet:
            click.echo(text, err=True)


def import_tasks(app: App) -> None:
    """Import the modules that define the app's tasks.

    Raises:
        AppNotFound: one cannot be imported; its own error is shown.
    """
    with _import_errors_shown("a module with tasks"):
        app.load_imports()


pass_globals = click.make_pass_decorator(Globals, ensure=True)


@contextmanager
def _import_errors_shown(what: str) -> Generator[None]:
    """Name the error inside a user's module, and where it is, instead of hiding or dumping it.

    Raises:
        AppNotFound: in place of whatever the module raised.
    """
    try:
        yield
    except AmqpTasksError:
        raise
    except SystemExit as exc:
        if _is_of_start(exc):
            raise
        raise AppNotFound(
            f'importing {what} exited: {exc!r}{_place(exc)}: keep what runs a program below `if __name__ == "__main__":`'
        ) from exc
    except Exception as exc:
        where = "" if isinstance(exc, SyntaxError) else _place(exc)  # that says it itself
        raise AppNotFound(f"importing {what} failed: {type(exc).__name__}: {exc}{where}") from exc


def _place(error: BaseException) -> str:
    *_, last = traceback.extract_tb(error.__traceback__)
    return f" ({last.filename}, line {last.lineno})"


def _is_of_start(error: SystemExit) -> bool:
    """Whether a module ran the command line itself, with an `app.start()` that nothing guards: then all is said and done."""
    from amqp_tasks.app import App
    from amqp_tasks.cli._exit import ExitCode

    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is App.start.__code__ or isinstance(error.code, ExitCode)


def _start_directory_on_path() -> None:
    # The console script's sys.path[0] is its bin directory; `-A proj` means ./proj, as `python -m` has it.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _store(name: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def store(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
        # An option not given must not undo the same option given before the sub-command.
        if value not in (None, False):
            setattr(ctx.ensure_object(Globals), name, value)

    return store


def _store_broker(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    state = ctx.ensure_object(Globals)
    state.broker = value
    if _has_password(value):
        click.echo(
            "warning: a password on the command line is visible to every user of this machine: "
            "set AMQP_TASKS_BROKER_URL instead",
            err=True,
        )


def _has_password(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        password = urlsplit(url).password
    except ValueError:
        return False
    return password not in (None, "", "guest")


def _store_no_color(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Globals).color = False
        ctx.color = False


def _change_directory(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        os.chdir(value)


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"amqp-tasks {version('amqp-tasks')}")
        ctx.exit()


class GlobalOption(click.Option):
    """An option that every command has, before or after its name."""


class _OwnOptionsFirst(click.Command):
    """Help that shows a command's own options apart from the global ones."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both sections, then the sub-commands of a group."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        options = (parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option))
        for parameter in options:
            record = parameter.get_help_record(ctx)
            if record is not None:
                (shared if isinstance(parameter, GlobalOption) else own).append(record)
        for title, records in (("Options", own), ("Global options, before or after the command", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class Command(_OwnOptionsFirst):
    """A command of ours."""


class Group(_OwnOptionsFirst, click.Group):
    """A group of our commands."""

    command_class = Command


def _option(*names: str, **given: Any) -> Callable[[F], F]:
    return click.option(*names, expose_value=False, cls=GlobalOption, **given)


_OPTIONS = (
    _option(
        "-A",
        "--app",
        metavar="MODULE[:ATTRIBUTE]",
        callback=_store("app_spec"),
        help="The app. Default: AMQP_TASKS_APP, else `app` in [tool.amqp-tasks] of ./pyproject.toml.",
    ),
    _option(
        "-b",
        "--broker",
        metavar="URL",
        callback=_store_broker,
        help="Broker to use instead of the app's. A password here is visible in the process list: prefer the "
        "environment. [env: AMQP_TASKS_BROKER_URL; default: amqp://guest:guest@localhost:5672//]",
    ),
    _option(
        "--config",
        metavar="MODULE",
        callback=_store("config"),
        help="Module with settings, read over the app's own such modules; what the app's code sets stays. [default: none]",
    ),
    _option(
        "--workdir",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False),
        is_eager=True,
        callback=_change_directory,
        help="Change to this directory first. [default: stay]",
    ),
    _option(
        "-C",
        "--no-color",
        is_flag=True,
        callback=_store_no_color,
        help="No colours. [env: NO_COLOR; default: colours on a terminal]",
    ),
    _option(
        "-q",
        "--quiet",
        is_flag=True,
        callback=_store("quiet"),
        help="No banner and no notes, only data and errors.",
    ),
    _option(
        "--traceback",
        is_flag=True,
        callback=_store("traceback"),
        help="Show the traceback of an error, not only its line.",
    ),
    _option(
        "--version",
        is_flag=True,
        is_eager=True,
        callback=_print_version,
        help="Print the version and exit.",
    ),
)


def global_options(command: F) -> F:
    """Add the global options to a command or group."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
