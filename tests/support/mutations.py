"""Copies of the package in which one guarantee is switched off: the fault tests must notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ("MUTATIONS", "ROOT", "Mutation", "copy_of_package", "run_against")

ROOT = Path(__file__).resolve().parents[2]
FAULTS = "tests/faults"
POINTS = f"{FAULTS}/test_named_points.py::test_promise_06_a_cut_at_any_point_of_the_protocol_loses_nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One guarantee switched off.

    Attributes:
        file: where it is made, from the root of the repository.
        was: the text that makes it; it is there once, or the mutation must be written anew.
        becomes: what stands there instead.
        test: the quickest fault test that must fail.
        says: what its failure says, as a regular expression.
        breaks_law: the law, judged at the end of that test, must name a task that is lost.
        long_tests: others that must fail too; only tried in the long form.
        is_quick: else it is only tried in the long form altogether.
    """

    file: str
    was: str
    becomes: str
    test: str
    says: str
    breaks_law: bool = False
    long_tests: tuple[str, ...] = ()
    is_quick: bool = True

    def applied_to(self, text: str) -> str:
        """The text of the file, changed.

        Raises:
            AssertionError: what is to be changed is not there once.
        """
        count = text.count(self.was)
        assert count == 1, f"{self.file} has {self.was!r} {count} times: write this mutation anew"
        return text.replace(self.was, self.becomes)


MUTATIONS: Mapping[str, Mutation] = {
    "confirms": Mutation(
        file="amqp_tasks/transport/rabbitmq/_publisher.py",
        was="            self._note_written(pending)\n",
        becomes="            self._note_written(pending)\n            pending.finish(None)\n",
        test=f"{FAULTS}/test_calls.py::test_promise_04_a_call_whose_message_was_cut_off_on_its_way_is_sent_again",
        says=r"lost: \d+: ",
        breaks_law=True,
        long_tests=(
            f"{FAULTS}/test_calls.py::test_promise_02_not_sent_was_never_stored_and_send_unknown_may_be",
            f"{POINTS}[callers-names0]",
        ),
    ),
    "mandatory": Mutation(
        file="amqp_tasks/message/_amqp.py",
        was="    mandatory: bool = True\n",
        becomes="    mandatory: bool = False\n",
        test=f"{FAULTS}/test_calls.py::test_promise_05_a_message_to_nowhere_is_an_error_and_a_deleted_queue_is_declared_again",
        says=r"DID NOT RAISE .*UnroutableError",
        breaks_law=True,
    ),
    "late acks": Mutation(
        file="amqp_tasks/worker/_runner.py",
        was="        return self.acks_late if task.acks_late is None else task.acks_late\n",
        becomes="        return False\n",
        test=f"{FAULTS}/test_dead_children.py::test_promise_06_the_task_of_a_killed_child_runs_again",
        says=r"ResultTimeout",
        breaks_law=True,
        long_tests=(
            f"{FAULTS}/test_dead_children.py::test_promise_10_children_of_a_killed_supervisor_end_and_their_tasks_go_to_another_worker",
        ),
    ),
    "kept failures": Mutation(
        file="amqp_tasks/worker/_engine.py",
        was="            self._set_aside(job, failure_refusal(error), record, traceback)\n",
        becomes="            self._settler.acknowledge(job)\n",
        test=f"{FAULTS}/test_account.py::test_promise_20_what_was_accepted_has_ended_or_is_where_one_command_says",
        says=r"AssertionError: \{'waiting'",  # the account does not balance
        breaks_law=True,
    ),
    "persistence": Mutation(
        file="amqp_tasks/transport/rabbitmq/_codec.py",
        was='    pieces = [b"", b"", bytes((properties.delivery_mode,)), b""]\n',
        becomes='    pieces = [b"", b"", b"\\x01", b""]\n',
        test=f"{FAULTS}/test_calls.py::test_promise_01_calls_that_wait_in_a_classic_queue_survive_a_restart_of_the_broker",
        says=r"lost: ",
        breaks_law=True,
        is_quick=False,
    ),
    "settlements of past channels": Mutation(
        file="amqp_tasks/transport/rabbitmq/_settlements.py",
        was="            if delivery.epoch == epoch:\n",
        becomes="            if True:\n",
        test="tests/broker/transport/test_rabbitmq_consuming.py::test_promise_6_a_connection_closed_by_the_admin_comes_back_and_old_settlements_are_stale",
        says=r"assert 0 == 1",
        is_quick=False,
    ),
    "settled once": Mutation(
        file="amqp_tasks/transport/rabbitmq/_consumer.py",
        was="        delivery.is_settled = True\n",
        becomes="        delivery.is_settled = False\n",
        test="tests/broker/transport/test_rabbitmq_consuming.py::test_settling_twice_is_an_error",
        says=r"DID NOT RAISE .*RuntimeError",
    ),
    "redeliveries known": Mutation(
        file="amqp_tasks/worker/_engine.py",
        was="            (redelivered if is_known else fresh).append(job)\n",
        becomes="            fresh.append(job)\n",
        test=f"{FAULTS}/test_lost_connections.py::test_promise_06_a_task_that_runs_while_its_connection_is_closed_is_not_run_twice",
        says=r"'held-[01]': 2|ResultTimeout: .* not finished",  # the second run may have the last free slot
        is_quick=False,
    ),
}
"""By the name of what is switched off."""


def copy_of_package(folder: Path, mutation: Mutation | None) -> Path:
    """Both packages, changed as the mutation says; returns the folder to import them from.

    Raises:
        AssertionError: the text to be changed is not there once.
    """
    for source in (ROOT / "amqp_tasks", ROOT / "routing" / "amqp_routing"):
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    if mutation is not None:
        changed = folder / mutation.file
        changed.write_text(mutation.applied_to(changed.read_text()))
    return folder


def run_against(
    package: Path, tests: Sequence[str], env: Mapping[str, str], *, within: float
) -> tuple[int, str]:
    """Run tests with that copy of the package, also in the processes that they start; pytest's status and its output."""
    # With a safe path, `python -m` puts no folder before those of PYTHONPATH.
    told = {**os.environ, **env, "PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--show-capture=no", "--tb=short", *tests],
        cwd=ROOT,
        env=told,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
