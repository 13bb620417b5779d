"""Every error: drawn in the tree, carried through pickle whole, and triggered by some test."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

from amqp_tasks import AsyncResult, errors
from amqp_tasks.errors import AmqpTasksError

TESTS = Path(__file__).parents[1]
CLASSES = {name: getattr(errors, name) for name in errors.__all__}
_REFUSED = errors.BrokerConnectionError("refused", url="amqp://***@host//")

SAMPLES: dict[str, AmqpTasksError] = {
    "SettingsError": errors.SettingsError(("one", "two")),
    "UnknownQueue": errors.UnknownQueue("hipry", known=("hipri",), hint="did you mean 'hipri'?"),
    "TopologyMismatch": errors.TopologyMismatch(("queue 'a' is classic",)),
    "BrokerConnectionError": _REFUSED,
    "BrokerUnreachable": errors.BrokerUnreachable("nobody", url="amqp://host//"),
    "BrokerAuthenticationError": errors.BrokerAuthenticationError("refused", url="amqp://host//"),
    "BrokerAccessError": errors.BrokerAccessError("refused", url="amqp://host//"),
    "BrokerOperationError": errors.BrokerOperationError("no", reply_code=403, reply_text="ACCESS_REFUSED"),
    "QueueNotRunning": errors.QueueNotRunning("mail", reply_code=404, reply_text="NOT_FOUND - … is down"),
    "MigrationRefused": errors.MigrationRefused("mail", "2 consume it"),
    "BrokerBlocked": errors.BrokerBlocked("blocked", reason="low on disk").about(
        exchange="e", routing_key="k", message_id="m"
    ),
    "UnroutableError": errors.UnroutableError("no queue").about(
        exchange="e", routing_key="k", message_id="m"
    ),
    "DepthLimitExceeded": errors.DepthLimitExceeded("again", 3),
    "BulkSendError": errors.BulkSendError(
        [None, errors.NotSent("no"), errors.SendUnknown("?")], [AsyncResult("a"), None, AsyncResult("b")]
    ),
    "WorkflowFailed": errors.WorkflowFailed(
        "w", failed={"a": errors.TaskError("no")}, not_run=("b",), succeeded=("c",)
    ),
    "MalformedMessage": errors.MalformedMessage("bad-json", "line 1", task_id="a"),
    "SoftTimeLimitExceeded": errors.SoftTimeLimitExceeded(0.5),
    "TimeLimitExceeded": errors.TimeLimitExceeded(30),
    "RemoteError": errors.RemoteError("Odd", ("a", 1), exc_module="m", remote_traceback="Traceback ..."),
}


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_is_pickled_and_copied_whole(name: str) -> None:
    error = SAMPLES.get(name) or CLASSES[name]("said")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
        assert twin == error
    assert error != AmqpTasksError(str(error)) or name == "AmqpTasksError"


def test_all_errors_are_exported() -> None:
    defined = {name for name, value in vars(errors).items() if _is_error(value)}

    assert sorted(defined) == list(errors.__all__)


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, AmqpTasksError)


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)([A-Z]\w+(?:Error|\w*))\b", line)
        if found and found[2] in CLASSES:
            del above[len(found[1]) // 4 :]
            drawn[found[2]] = above[-1] if above else ""
            above.append(found[2])

    assert drawn == {name: _parent(kind) for name, kind in CLASSES.items()}


def _parent(kind: type[AmqpTasksError]) -> str:
    return next((base.__name__ for base in kind.__mro__[1:] if _is_error(base)), "")


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_occurs_in_the_test_of_what_raises_it(name: str) -> None:
    word = re.compile(rf"\b{name}\b")

    assert any(word.search(path.read_text()) for path in TESTS.rglob("test_*.py") if path != Path(__file__))


def test_an_unknown_queue_lists_what_is_known_only_where_something_is() -> None:
    assert str(errors.UnknownQueue("x", known=("a", "b"))) == "unknown queue 'x' (known: a, b)"
    assert str(errors.UnknownQueue("x", hint="declare it")) == "unknown queue 'x'; declare it"
