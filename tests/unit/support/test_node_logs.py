"""What a failed test's report shows of a node's log."""

from __future__ import annotations

from datetime import datetime

from support.node_logs import MAX_LINES, errors_since

BEGAN = datetime.fromisoformat("2026-11-21 15:41:22+00:00")
LOG = """\
  ##  ##      RabbitMQ 3.10.8
2026-11-21 15:41:21.999999+00:00 [error] <0.881.0> of the test before
2026-11-21 15:41:22.000000+00:00 [warning] <0.882.0> closing AMQP connection <0.867.0>
2026-11-21 16:41:22.662218+01:00 [error] <0.883.0>   crasher:
2026-11-21 16:41:22.662218+01:00 [error] <0.883.0>     reason: noproc
2026-11-21 15:41:23.000000+00:00 [info] <0.884.0> said "[error] " itself
2026-11-21 15:41:24.000000+00:00 [critical] <0.885.0> out of disk
"""


def test_the_errors_of_a_tests_time_are_shown() -> None:
    assert [line.partition("> ")[2] for line in errors_since(LOG, BEGAN)] == [
        "  crasher:",
        "    reason: noproc",
        "out of disk",
    ]


def test_a_flood_of_errors_is_cut_and_counted() -> None:
    flood = "".join(f"2026-11-21 15:42:00+00:00 [error] <0.1.0> {n}\n" for n in range(MAX_LINES + 7))

    shown = errors_since(flood, BEGAN)

    assert len(shown) == MAX_LINES + 1
    assert shown[-1] == "... and 7 lines more"
