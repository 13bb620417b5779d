"""How far a task has got, and states of its own (P049)."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqp_tasks import App
from amqp_tasks.app._progress import Progress
from amqp_tasks.errors import ConfigurationError, ResultTimeout
from support import WorkerProcesses
from support.workflow_app import progressing

APP = "support.workflow_app:app"


def test_progress_reaches_who_waits_and_ends_with_the_task(
    caller: App, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP)
    go = tmp_path / "go"
    result = progressing.delay(1000, str(go))
    states: list[str] = []
    result.listen(lambda record: states.append(str(record.status)))
    with pytest.raises(ResultTimeout):
        list(result.updates(timeout=0.1))
    go.touch()

    told = list(result.updates(timeout=20))

    assert result.get(timeout=10) == 1000
    # Not a thousand messages: the first, one in a tenth of a second, and the last.
    assert told[0] == Progress(1, 1000, "step 1")
    assert told[-1] == Progress(1000, 1000, "step 1000")
    assert len(told) < 500
    assert told[-1].fraction == 1.0
    assert "LOADING" in states


def test_a_task_that_is_no_running_one_has_no_progress() -> None:
    with pytest.raises(ConfigurationError, match="called as a function"):
        progressing.progress(1)
    with pytest.raises(ConfigurationError, match="a state of your own"):
        progressing.update_state("SUCCESS")
    assert Progress(3).fraction is None
