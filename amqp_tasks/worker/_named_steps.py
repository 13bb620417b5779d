"""What follows when all that named steps wait for has ended: they begin, or those who wait for them are told that they do not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from amqp_tasks.canvas import Join
from amqp_tasks.errors import StepLost, StepNotRun
from amqp_tasks.message import (
    JoinOutcome,
    Needed,
    ResultRecord,
    State,
    exception_from_data,
    outcome_message,
    read_needs,
)
from amqp_tasks.worker._steps import StepMaker, Steps, Whose

__all__ = ("emptied_steps", "joins_behind", "joins_in", "lost_steps", "named_steps")


def named_steps(
    maker: StepMaker,
    whose: Whose,
    queue: str,
    definition: Mapping[str, Any],
    ordered: Sequence[JoinOutcome],
    failures: Collection[str],
) -> Steps:
    """What is to be published.

    Args:
        maker: makes it.
        whose: what they follow.
        queue: of the join.
        definition: of the join.
        ordered: the outcomes that it waited for.
        failures: those of them that may still be resumed (`JoinOutcome.kept_as`); empty: the join ends with this.

    Raises:
        BrokerConnectionError: the broker cannot be asked for what they need.
    """
    steps = Steps()
    failed = next((outcome for outcome in ordered if outcome.error is not None), None)
    if failed is None:
        values = [outcome.value for outcome in ordered]
        for number, part in enumerate(definition["steps"]):
            place = f"step {number} of {queue}"
            rest, joins = part.get("chain") or (), joins_in(part)
            maker.start(steps, whose, part["body"], place, args=values, rest=rest, joins=joins)
        return steps
    return _not_run(maker, whose, definition, _reason(failed), kept_as=_failure_of(queue, failures))


def emptied_steps(maker: StepMaker, whose: Whose, definition: Mapping[str, Any], why: str) -> Steps:
    """What is to be published when the outcomes that named steps waited for are lost: they are not run, for good."""
    return _not_run(maker, whose, definition, StepNotRun(f"the steps that it needs have ended, but {why}"))


def lost_steps(
    queue: str, definition: Mapping[str, Any], missing: Sequence[int], why: str, *, kept_as: str
) -> Steps:
    """What is to be published when nothing comes of steps: their outcomes for the join, and to whoever waits for them.

    Args:
        queue: of the join.
        definition: of the join.
        missing: their indexes in it.
        why: what is said of each.
        kept_as: tells these failures from others of the same steps; empty: for good.
    """
    steps, now = Steps(), datetime.now(UTC)
    for index, needed in _needed(definition, missing):
        error = StepLost(f"step {needed.name!r} is lost: {why}")
        told = StepNotRun.because_of(needed.name, error)
        own = kept_as and f"{kept_as} {index}"
        steps.messages.append(outcome_message(queue, index, "", error=told, kept_as=own, is_lost=True))
        for member, reply_to in needed.members:
            if reply_to:
                record = ResultRecord(task_id=member, status=State.FAILURE, result=error, date_done=now)
                steps.records.append((record, reply_to))
    return steps


def _not_run(
    maker: StepMaker, whose: Whose, definition: Mapping[str, Any], error: Exception, *, kept_as: str = ""
) -> Steps:
    steps, lost = Steps(), replace(whose, kept_as=kept_as)
    for part in definition["steps"]:
        maker.not_run(steps, lost, part["body"], part.get("chain") or (), joins_in(part), error)
    return steps


def joins_in(part: Mapping[str, Any]) -> tuple[Join, ...]:
    """The joins that a part of a definition names."""
    return tuple(Join(queue=queue, index=index, size=size) for queue, index, size in part.get("joins") or ())


def joins_before(definition: Mapping[str, Any], missing: Sequence[int]) -> set[str]:
    """The queues of the joins in which those of the needed steps wait that have these indexes."""
    return {needed.behind for _, needed in _needed(definition, missing) if needed.behind}


def _needed(definition: Mapping[str, Any], indexes: Sequence[int]) -> Iterator[tuple[int, Needed]]:
    needs = read_needs(definition)
    for index in indexes:
        added = Needed(name="(added by another)", behind="", members=())
        yield index, needs[index] if index < len(needs) else added


def ids_in(definition: Mapping[str, Any]) -> list[Any]:
    """The ids of the named steps that wait in a join; of a chord, none."""
    return [_id_of(part) for part in definition.get("steps") or ()]


def _id_of(part: Any) -> Any:
    match part:
        case {"body": {"options": {"task_id": task_id}}}:
            return task_id
        case _:
            return None


def joins_behind(definition: Mapping[str, Any]) -> tuple[Join, ...]:
    """The joins that wait for named steps."""
    return tuple(join for part in definition["steps"] for join in joins_in(part))


def _reason(failed: JoinOutcome) -> Exception:
    """Why they are not run: the failure that it began with, however many steps lie between."""
    error = exception_from_data(failed.error)
    return error if isinstance(error, StepNotRun) else StepNotRun.because_of(failed.task_id, error)


def _failure_of(queue: str, failures: Collection[str]) -> str:
    """What tells this failure of the join from one with other causes; empty when it is for good."""
    if not failures:
        return ""
    causes = "\n".join(sorted(failures)).encode("utf-8", "surrogatepass")
    return f"{queue} {blake2b(causes, digest_size=8).hexdigest()}"
