"""Workflows of named steps that have failed: which steps lie in the dead letters, and how they are run again.

A failed step is a dead letter that says in a header which step of which workflow it is. Its message holds what travels with
it; what else needs it waits in join queues, which keep what the other steps gave. So to run the failed steps again is all it takes.

Of a step that was lost it is the watch of the join that waits for it which lies there. When the step comes after all, its join begins what
needs it and is gone: then nothing has failed, and the letter is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from amqp_tasks.app._dead_letters import DeadLetterFilter, Requeued, published
from amqp_tasks.app._leftovers import discard_left
from amqp_tasks.canvas import join_queues
from amqp_tasks.errors import AmqpTasksError, MalformedMessage
from amqp_tasks.message import SIGNED_AS_TASK, WATCH_TASK, DeadLetter, StepMark, read_mark, watch_id

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._look import Found, Look

__all__ = ("FailedStep", "discard", "failed_steps", "resume")


@dataclass(frozen=True, slots=True)
class FailedStep:
    """A step that has failed and can be run again.

    Attributes:
        workflow_id: of its workflow.
        step: its name.
        letter: its message and why it failed.
    """

    workflow_id: str
    step: str
    letter: DeadLetter


def _ignored(mark: StepMark) -> None: ...


def failed_steps(
    app: App, workflow_id: str | None = None, queues: Iterable[str] | None = None
) -> list[FailedStep]:
    """The failed steps of a workflow, or of all, as far as they lie in the dead letters of these queues; each once. Without
    those that were lost and have come after all."""
    found: dict[tuple[str, str], FailedStep] = {}
    where = DeadLetterFilter(workflow=workflow_id)
    with closing(app.dead_letters.looks(queues, where)) as looks:
        for each in chain.from_iterable(chain.from_iterable(look for _, look in looks)):
            letter = replace(each.letter, body=None)
            mark = read_mark(letter.headers)
            if mark is not None and _is_ours(app, each) and not _has_ended(app, letter):
                found[mark.workflow_id, mark.step] = FailedStep(mark.workflow_id, mark.step, letter)
    return list(found.values())


def _is_ours(app: App, found: Found) -> bool:
    """Whether it is signed, where that is asked for: a stranger's letter must not stand for the step that it names."""
    keys = app.transport.keys
    if keys is None:
        return True
    try:
        keys.check(found.delivery.properties, found.delivery.body, SIGNED_AS_TASK)
    except MalformedMessage:
        return False
    return True


def _has_ended(app: App, letter: DeadLetter) -> bool:
    """Whether it is the watch of a join that is gone: as a watch finds it too, which then ends."""
    mark = read_mark(letter.headers) if letter.task == WATCH_TASK else None
    queue = next((name for name in _queues_of(mark) if watch_id(name) == letter.id), None)
    return queue is not None and app.transport.queue_status(queue) is None


def resume(
    app: App,
    workflow_id: str,
    steps: Collection[str] | None = None,
    queues: Iterable[str] | None = None,
    *,
    on_resumed: Callable[[StepMark], object] = _ignored,
) -> Requeued:
    """Put the failed steps of a workflow back into their queues, each once.

    A step that is there several times, as its worker died when it had set it aside, is published for the first of its letters;
    the others are removed when that is confirmed. So is, without being published, what waits for a lost step that has come after all.
    `on_resumed` is told of each step when it is in its queue.
    """
    count, failures = 0, list[tuple[DeadLetter, AmqpTasksError]]()
    done: set[str] = set()
    where = DeadLetterFilter(workflow=workflow_id, steps=steps)
    with closing(app.dead_letters.looks(queues, where)) as looks:
        for name, look in looks:
            for found, error in _put_back(app, name, _without_ended(app, look), done, on_resumed):
                if error is not None:
                    failures.append((found.letter, error))
                    continue
                count += found.letter.id not in done
                done.add(found.letter.id)
                look.remove(found)
    return Requeued(count=count, failures=tuple(failures))


def _without_ended(app: App, look: Look) -> Iterator[list[Found]]:
    """The letters but for watches of joins that have ended, which are removed."""
    for batch in look:
        left: list[Found] = []
        for found in batch:
            if not _is_ours(app, found):
                continue  # it stays where it is
            if _has_ended(app, found.letter):
                look.remove(found)
            else:
                left.append(found)
        yield left


def _put_back(
    app: App,
    queue_name: str,
    batches: Iterable[Sequence[Found]],
    done: Collection[str],
    on_resumed: Callable[[StepMark], object],
) -> Iterator[tuple[Found, AmqpTasksError | None]]:
    """Each letter with None when its step is in its queue again, else with the error."""
    for batch in batches:
        first: dict[str, Found] = {}
        others: list[Found] = []
        for found in batch:
            if found.letter.id in done or found.letter.id in first:
                others.append(found)
            else:
                first[found.letter.id] = found
        outcomes = list(published(app.transport, queue_name, list(first.values())))
        # All of them, before an error with the first lets nobody know of the others.
        for found, error in outcomes:
            mark = read_mark(found.letter.headers)
            if error is None and mark is not None:
                on_resumed(mark)
        yield from outcomes
        yield from ((found, None) for found in others if found.letter.id in done)


def discard(app: App, workflow_id: str, queues: Iterable[str] | None = None) -> int:
    """Remove the failed steps of a workflow for good, and the joins that wait for them; returns how many steps.

    The joins go first: while a step is left, they can be named. Where all that is left are watches of joins that have ended, the rest of the
    workflow runs, and keeps its joins. Where no failed step is left, those that waited for one are removed and counted.
    """
    names = None if queues is None else list(queues)
    marks = [read_mark(failed.letter.headers) for failed in failed_steps(app, workflow_id, names)]
    for queue in sorted(set(chain.from_iterable(map(_queues_of, marks)))):
        app.transport.delete_queue(queue)
    # In queues that were not looked at, there may be one.
    left = discard_left(app, workflow_id) if not marks and names is None else 0
    return left + app.dead_letters.purge(names, DeadLetterFilter(workflow=workflow_id))


def _queues_of(mark: StepMark | None) -> list[str]:
    return [] if mark is None else join_queues(mark.workflow_id, mark.joins)
