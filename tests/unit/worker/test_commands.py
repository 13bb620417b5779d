"""Which commands a worker heeds, and that what nodes tell each other is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.app._control import Control
from amqp_tasks.errors import SettingsError
from amqp_tasks.message import JournalEntry
from amqp_tasks.settings import Conf
from amqp_tasks.worker._asks import Answers
from amqp_tasks.worker._claims import Claims
from amqp_tasks.worker._commands import COMMAND_OF_KIND, Commands
from amqp_tasks.worker._journal import MARK

SAFETY = (*Answers.kinds, *Claims.kinds, MARK)
METHODS: tuple[Callable[[Control], None], ...] = (
    lambda control: control.revoke("id"),
    lambda control: control.unrevoke("id"),
    lambda control: control.terminate("id"),
    lambda control: control.revoke_by_stamped_headers({"batch": "b"}),
    lambda control: control.unrevoke_by_stamped_headers({"batch": "b"}),
    lambda control: control.pause("default"),
    lambda control: control.resume("default"),
    lambda control: control.rate_limit("task", "1/s"),
)


def entry(kind: str, **facts: Any) -> JournalEntry:
    return JournalEntry(kind=kind, id="e", time=0.0, sender="test", facts=facts)


def commands(**settings: Any) -> Commands:
    return Commands.of(Conf(environ={}, **settings).settings().worker)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that `app.control` writes."""
    kinds: list[str] = []

    def note(_control: Control, kind: str, _timeout: float | None, *_facts: object) -> None:
        kinds.append(kind)

    monkeypatch.setattr(Control, "_write_entries", note)
    return kinds


def test_everything_that_app_control_says_is_a_command_that_can_be_refused(written: list[str]) -> None:
    public = {name for name in vars(Control) if not name.startswith("_")}
    with App("controlling", broker="memory://") as app:
        for call in METHODS:
            call(app.control)

    assert len(METHODS) == len(public)
    assert set(written) == set(COMMAND_OF_KIND)


@pytest.mark.parametrize(
    "settings",
    [{"worker_enable_remote_control": False}, {"worker_accept_commands": []}],
    ids=["switched off", "an empty list"],
)
def test_none_is_heeded_and_what_nodes_tell_each_other_always_is(settings: dict[str, Any]) -> None:
    refusing = commands(**settings)

    assert [refusing.heeded(entry(kind)) for kind in COMMAND_OF_KIND] == [None] * len(COMMAND_OF_KIND)
    assert all(refusing.heeded(said) is said for said in map(entry, (*SAFETY, "from-the-future")))


def test_all_are_heeded_by_default() -> None:
    default = commands()

    said = [entry(kind, terminate=True) for kind in COMMAND_OF_KIND]
    assert all(default.heeded(each) is each for each in said)


@pytest.mark.parametrize("command", ["revoke", "pause", "rate_limit"])
def test_each_is_heeded_by_itself(command: str) -> None:
    picky = commands(worker_accept_commands=command)

    heeded = {kind for kind in COMMAND_OF_KIND if picky.heeded(entry(kind)) is not None}
    assert heeded == {kind for kind, name in COMMAND_OF_KIND.items() if name == command}


@pytest.mark.parametrize("kind", ["revoke", "revoke-stamps"])
def test_a_termination_that_is_refused_is_a_revocation(kind: str) -> None:
    mild = commands(worker_accept_commands=["revoke"])

    heeded = mild.heeded(entry(kind, ids=["a"], terminate=True, signal="SIGTERM"))

    assert heeded == entry(kind, ids=["a"], terminate=False, signal="SIGTERM")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (["revoke", "puase"], "did you mean 'pause'?"),
        ("ratelimit", "did you mean 'rate_limit'?"),
        (["shutdown"], "'revoke', 'terminate', 'pause', 'rate_limit'"),
        (["terminate"], "'revoke' beside 'terminate'"),
        ([3], "'revoke', 'terminate', 'pause', 'rate_limit'"),
        (3, "a list"),
    ],
    ids=str,
)
def test_a_name_that_is_none_is_a_fault(value: object, fault: str) -> None:
    with pytest.raises(SettingsError) as caught:
        commands(worker_accept_commands=value)

    assert fault in str(caught.value)


@pytest.mark.parametrize("text", ["revoke,pause", '["revoke", "pause"]'])
def test_the_environment_names_them_with_commas_or_as_json(text: str) -> None:
    conf = Conf(environ={"AMQP_TASKS_WORKER_ACCEPT_COMMANDS": text})

    assert conf.settings().worker.accept_commands == ("revoke", "pause")
