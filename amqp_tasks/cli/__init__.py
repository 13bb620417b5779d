"""The command line `amqp-tasks`.

Commands are thin: they read their options, build the app and call one library function. Data goes to stdout, logs
and errors to stderr; each exit code is an `ExitCode`.
"""

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._main import main

__all__ = ("ExitCode", "main")
