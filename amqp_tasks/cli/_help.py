"""How help ends: examples, then exit codes."""

from __future__ import annotations

from amqp_tasks.cli._exit import ExitCode

__all__ = ("command_epilog", "epilog")


def epilog(*examples: str) -> str:
    r"""The end of a command's help; `\b` keeps click from re-flowing a paragraph."""
    codes = [f"  {code.value:>3}  {code.description}" for code in ExitCode]
    shown = ["\b", "Examples:", *(f"  {example}" for example in examples)]
    return "\n".join([*shown, "", "\b", "Exit codes:", *codes])


def command_epilog(*examples: str) -> str:
    """As `epilog`, for a sub-command: the codes are named once, by the group."""
    shown = ["\b", "Examples:", *(f"  {example}" for example in examples)]
    return "\n".join([*shown, "", "Exit codes: see amqp-tasks --help."])
