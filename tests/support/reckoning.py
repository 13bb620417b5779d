"""From the reports of callers, tasks and faults to the outcome of a run: pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from support.conservation import Outcome
from support.ledger import Entry

__all__ = ("keys_by_event", "reckon")

SETTLE_SECONDS = 2.0
"""So long after its end may a task run again when a fault comes: its outcome and its ack are on their way."""


@dataclass(frozen=True)
class _Span:
    """From one moment to another, of the monotonic clock."""

    begin: float
    end: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.begin

    def meets(self, other: _Span) -> bool:
        """Whether they have a moment in common."""
        return self.begin <= other.end and other.begin <= self.end


def keys_by_event(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """The keys of each event."""
    found: dict[str, set[str]] = defaultdict(set)
    for each in entries:
        found[each.event].add(each.key)
    return found


def reckon(
    entries: Sequence[Entry],
    *,
    dead: Mapping[str, str],
    queued: Collection[str],
    revoked: Collection[str] = (),
    expired: Collection[str] = (),
    statuses: Sequence[int | None] = (),
    restarts: int = 0,
) -> Outcome:
    """The outcome of a run whose workers and callers have ended."""
    keys = keys_by_event(entries)
    starts = [each for each in entries if each.event == "start"]
    repeated = {key for key, count in Counter(each.key for each in starts).items() if count > 1}
    faults = _faults(entries)
    ended = keys["accepted"] | keys["refused"] | keys["unknown"]
    return Outcome(
        submitted=frozenset(keys["submit"]),
        accepted=frozenset(keys["accepted"]),
        refused=frozenset(keys["refused"]),
        unknown=frozenset(keys["unknown"]),
        errors={each.key: each.note for each in entries if each.event in {"refused", "unknown"}},
        hung=frozenset(keys["submit"] - ended),
        executed=Counter(each.key for each in entries if each.event == "done"),
        started=Counter(each.key for each in starts),
        dead=dict(dead),
        queued=frozenset(queued),
        revoked=frozenset(revoked),
        expired=frozenset(expired),
        unexplained=frozenset(
            _untouched(
                repeated - set(dead), entries, [*(span for _, span in faults), *_crashes(starts, dead)]
            )
        ),
        changed=frozenset(_with_several_ids(starts)),
        slowest_submit=max((span.length for span in _submits(entries).values()), default=0.0),
        pauses=tuple((name, _pause(span, starts)) for name, span in faults),
        values=frozenset(keys["value"]),
        unanswered=frozenset(keys["get"] - keys["value"] - keys["no-value"]),
        slowest_get=_slowest_gets(entries),
        no_values={each.key: each.note for each in entries if each.event == "no-value"},
        statuses=tuple(statuses),
        restarts=restarts,
    )


def _faults(entries: Sequence[Entry]) -> list[tuple[str, _Span]]:
    begun: dict[str, float] = {}
    found: list[tuple[str, _Span]] = []
    for each in entries:
        if each.event == "fault":
            begun[each.key] = each.at
        elif each.event == "fault-over":
            found.append((each.key, _Span(begun.pop(each.key), each.at)))
    return found


def _crashes(starts: Sequence[Entry], dead: Collection[str]) -> list[_Span]:
    """A start of a task that ended among the dead letters is a fault to what its process had not yet acked."""
    return [_Span(each.at, each.at) for each in starts if each.key in dead]


def _spans(entries: Sequence[Entry], first: str, *last: str) -> dict[str, _Span]:
    """From one event of each key to the other."""
    begun = {each.key: each.at for each in entries if each.event == first}
    ends = [each for each in entries if each.event in last and each.key in begun]
    return {each.key: _Span(begun[each.key], each.at) for each in ends}


def _submits(entries: Sequence[Entry]) -> dict[str, _Span]:
    """From the begin of each call to its end."""
    return _spans(entries, "submit", "accepted", "refused", "unknown")


def _slowest_gets(entries: Sequence[Entry]) -> dict[str, float]:
    slowest: dict[str, float] = defaultdict(float)
    for key, span in _spans(entries, "get", "value", "no-value").items():
        caller = key.rpartition("-")[0]
        slowest[caller] = max(slowest[caller], span.length)
    return slowest


def _untouched(repeated: set[str], entries: Sequence[Entry], faults: Sequence[_Span]) -> set[str]:
    """The repeated ones that no fault met, neither on their way in nor while they ran and were settled."""
    submits = _submits(entries)
    runs = _first_runs(entries, repeated)
    return {
        key
        for key in repeated
        if not any(span.meets(fault) for fault in faults for span in (submits.get(key), runs[key]) if span)
    }


def _first_runs(entries: Sequence[Entry], keys: set[str]) -> dict[str, _Span]:
    """From each key's first start to its first end and a while beyond; to for ever if it never ended."""
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}
    for each in entries:
        if each.key in keys and each.event in {"start", "done"}:
            (begun if each.event == "start" else ended).setdefault(each.key, each.at)
    return {
        key: _Span(at, ended[key] + SETTLE_SECONDS if key in ended else float("inf"))
        for key, at in begun.items()
    }


def _with_several_ids(starts: Sequence[Entry]) -> set[str]:
    ids: dict[str, set[str]] = defaultdict(set)
    for each in starts:
        ids[each.key].add(each.note)
    return {key for key, found in ids.items() if len(found) > 1}


def _pause(fault: _Span, starts: Sequence[Entry]) -> float | None:
    """Seconds from the end of a fault to the next start."""
    return min((each.at - fault.end for each in starts if each.at > fault.end), default=None)
