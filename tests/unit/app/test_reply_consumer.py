"""What becomes of those who wait when something happens to the consumer of their reply queue."""

from __future__ import annotations

from uuid import uuid4

import pytest

from amqp_tasks import App
from amqp_tasks.backends.rpc import RpcBackend
from amqp_tasks.errors import ResultLost
from amqp_tasks.transport import ConsumerEvent, ConsumerState
from support.inside import running


@pytest.mark.parametrize("is_queue_there", [True, False])
def test_who_waits_is_told_of_a_lost_queue_and_not_of_a_lost_consumer(is_queue_there: bool) -> None:
    with App("proj", broker=f"memory://{uuid4().hex}/") as app:

        @app.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        result = add.delay(1, 2)
        backend = app.backend
        assert isinstance(backend, RpcBackend)
        event = ConsumerEvent(state=ConsumerState.CANCELLED, epoch=1, is_queue_there=is_queue_there)

        backend._on_event(event)

        if is_queue_there:
            with running(app, pool="solo"):
                assert result.get(10) == 3
        else:
            with pytest.raises(ResultLost):
                result.get(10)
