"""The table of figures of the long fault runs."""

from __future__ import annotations

from support.conservation import Outcome

__all__ = ("Figures",)

HEADER = (
    "fault",
    "system",
    "calls",
    "raised",
    "hung",
    "slowest call",
    "lost",
    "left",
    "ran twice",
    "kept as dead",
    "most starts of one",
    "no result",
    "workers ended",
    "back after",
)


class Figures:
    """Lines of outcomes, all with one broker."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._rows: list[tuple[str, ...]] = []

    def add(self, title: str, system: str, outcome: Outcome) -> None:
        """Add what one run saw."""
        pause = outcome.pause_after_return
        self._rows.append(
            (
                title,
                system,
                f"{len(outcome.submitted):,}",
                _count(outcome.refused | outcome.unknown),
                _count(outcome.hung | outcome.unanswered),
                f"{outcome.slowest_submit:.1f} s",
                _count(outcome.lost),
                _count(outcome.queued),
                _count(outcome.duplicates),
                _count(outcome.dead),
                str(max(outcome.started.values(), default=0)),
                _count(set(outcome.no_values) - {key for key in outcome.no_values if "waiter-1" in key}),
                str(outcome.restarts),
                "–" if not outcome.pauses else "never" if pause == float("inf") else f"{pause:.1f} s",
            )
        )

    def text(self) -> str:
        """As Markdown."""
        lines = [HEADER, ("---",) * len(HEADER), *sorted(self._rows, key=lambda row: row[0])]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"RabbitMQ {self.version}\n\n{table}\n"


def _count(keys: object) -> str:
    return str(len(keys))  # type: ignore[arg-type]
