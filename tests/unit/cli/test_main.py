"""What the command line does before any command runs: parsing, help, one-line errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from amqp_tasks.cli import ExitCode, main
from amqp_tasks.cli._celery import COMMANDS, WORKER_OPTIONS
from amqp_tasks.cli._main import root

Captured = pytest.CaptureFixture[str]


def test_help_names_every_command_and_every_exit_code(capsys: Captured) -> None:
    code = main(["--help"])

    printed = capsys.readouterr().out
    assert code == ExitCode.OK
    assert all(name in printed for name in root.list_commands(click.Context(root)))
    assert all(member.description in printed for member in ExitCode)


def test_an_unknown_command_is_one_line_with_the_nearest_name(capsys: Captured) -> None:
    code = main(["wroker"])

    assert code == ExitCode.USAGE
    assert (
        capsys.readouterr().err
        == "error: no such command 'wroker', did you mean 'worker'? (see amqp-tasks --help)\n"
    )


def test_an_unknown_option_is_one_line_with_the_nearest_name(capsys: Captured) -> None:
    code = main(["worker", "--queus", "a"])

    said = capsys.readouterr().err
    assert code == ExitCode.USAGE
    assert said.count("\n") == 1
    assert "--queues" in said


@pytest.mark.parametrize("option", ["--force", "--yes", "-y"])
def test_a_worker_is_not_forced_to_a_purge_that_is_not_asked_for(option: str, capsys: Captured) -> None:
    code = main(["-A", "nowhere_to_be_found", "worker", option])

    assert code == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "error: --force (--yes, -y) answers the question of --purge, and there is none: add --purge, or leave it out"
        " (see amqp-tasks worker --help)\n"
    )


def test_no_arguments_show_the_help_and_are_a_usage_error(capsys: Captured) -> None:
    assert main([]) == ExitCode.USAGE
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--version"], ["worker", "--version"]])
def test_the_version_is_printed_before_and_after_a_command(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == ExitCode.OK
    assert capsys.readouterr().out.startswith("amqp-tasks ")


@pytest.mark.parametrize(
    "arguments", [["-A", "nowhere_to_be_found", "queues"], ["queues", "-A", "nowhere_to_be_found"]]
)
def test_global_options_count_before_and_after_the_command(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert "nowhere_to_be_found" in capsys.readouterr().err


def test_a_password_on_the_command_line_is_warned_about_and_not_repeated(capsys: Captured) -> None:
    main(["-b", "amqp://user:s3cr3t-canary@localhost:1//", "--version"])
    main(["-b", "amqp://user:s3cr3t-canary@localhost:1//", "queues", "--nonsense"])

    captured = capsys.readouterr()
    assert "visible" in captured.err
    assert "s3cr3t-canary" not in captured.out + captured.err


def test_an_error_of_a_command_is_its_line_unless_a_traceback_is_wanted(capsys: Captured) -> None:
    assert main(["-A", "no_such_module_anywhere", "queues"]) == ExitCode.USAGE
    short = capsys.readouterr().err
    assert main(["-A", "no_such_module_anywhere", "queues", "--traceback"]) == ExitCode.USAGE
    long = capsys.readouterr().err

    assert short.startswith("error: ")
    assert short.count("\n") == 1
    assert "no_such_module_anywhere" in short
    assert "Traceback" in long


def test_the_worker_command_imports_neither_rich_nor_the_other_commands() -> None:
    program = (
        "import sys; from amqp_tasks.cli import main; main(['worker', '--help']);"
        "print([name for name in sys.modules if name == 'rich' or name.startswith('amqp_tasks.cli.commands.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.splitlines()[-1] == "['amqp_tasks.cli.commands.worker']"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed_for_each_shell(shell: str, capsys: Captured) -> None:
    assert main(["completion", shell]) == ExitCode.OK
    assert "_AMQP_TASKS_COMPLETE" in capsys.readouterr().out


def test_what_only_celery_has_is_answered_with_what_to_do(capsys: Captured) -> None:
    known = {spelling for parameter in root_command("worker").params for spelling in parameter.opts}

    for option, remedy in WORKER_OPTIONS.items():
        assert option not in known
        assert main(["worker", option, "x"]) == ExitCode.USAGE
        assert capsys.readouterr().err == (
            f"error: no such option {option!r}, which is Celery's: {remedy} (see amqp-tasks worker --help)\n"
        )
    for name, remedy in COMMANDS.items():
        assert main([name, "x"]) == ExitCode.USAGE
        assert remedy in capsys.readouterr().err
        assert name not in root.list_commands(click.Context(root))


def test_an_option_of_celerys_worker_is_not_explained_elsewhere(capsys: Captured) -> None:
    assert main(["queues", "-O", "fair"]) == ExitCode.USAGE
    assert "Celery" not in capsys.readouterr().err


def root_command(name: str) -> click.Command:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    return command


def every_command(group: click.Group = root, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from every_command(command, *path, name)
        else:
            yield (*path, name)


def test_all_help_fits_a_terminal_of_eighty_columns(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    for path in every_command():
        assert main([*path, "--help"]) == ExitCode.OK
        for line in capsys.readouterr().out.splitlines():
            assert len(line) <= 80, path
            assert not line.endswith("...") or line.startswith("Usage:"), path  # cut by click


def test_a_command_of_celerys_is_not_explained_below_a_group(capsys: Captured) -> None:
    assert main(["config", "list"]) == ExitCode.USAGE
    assert "Celery" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "choices"), [(["check"], "producer, worker"), (["completion"], "bash, zsh, fish")]
)
def test_a_missing_choice_is_one_line(argv: list[str], choices: str, capsys: Captured) -> None:
    assert main(argv) == ExitCode.USAGE

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"Choose from: {choices} (see" in said


@pytest.mark.parametrize("name", ["gevent", "eventlet"])
def test_a_pool_of_greenlets_is_answered_with_what_to_use(name: str, capsys: Captured) -> None:
    assert main(["worker", "-P", name]) == ExitCode.USAGE
    assert f"there is no greenlet pool: use 'threads' instead of '{name}'" in capsys.readouterr().err


def test_a_pool_goes_by_celerys_other_name_too() -> None:
    pool = next(each for each in root_command("worker").params if each.name == "pool")

    assert [pool.type.convert(name, pool, None) for name in ("processes", "solo")] == ["prefork", "solo"]
