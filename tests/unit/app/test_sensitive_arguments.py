"""Arguments that are not to be shown: of tasks, and of the signatures that call them."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from typing import Any

import pytest

from amqp_tasks import App, Task, Workflow, chord, group, signature
from amqp_tasks.app._current import set_current
from amqp_tasks.canvas import _signature
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import bounded_repr


def add(x: int, y: int) -> int:
    return x + y


def test_a_misspelt_sensitive_parameter_is_refused_before_it_is_logged() -> None:
    app = App("proj", task_annotations={f"{__name__}.add": {"sensitive": ("y", "z")}}, task_always_eager=True)

    with pytest.raises(ConfigurationError, match="sensitive names 'z', which is no parameter"):
        app.task(name="own", sensitive=("x", "z"))(add)
    with pytest.raises(ConfigurationError, match="sensitive names 'z', which is no parameter"):
        app.task(add).delay(1, 2)


def test_a_sensitive_parameter_may_be_any_that_the_function_takes() -> None:
    def anything(x: int, *rest: int, **more: int) -> None: ...

    def bound(self: Task[..., Any], secret: str) -> None: ...

    app = App("proj")

    assert app.task(sensitive=["x", "rest", "z"])(anything).sensitive == ("x", "rest", "z")
    assert app.task(bind=True, sensitive=["secret"])(bound).sensitive == ("secret",)
    with pytest.raises(ConfigurationError, match="sensitive names 'self'"):
        app.task(name="self", bind=True, sensitive=["self"])(bound)


def test_a_signature_of_a_task_with_sensitive_arguments_shows_none_of_them() -> None:
    app = App("proj")
    log_in = app.task(name="log_in", sensitive=("password",))(lambda user, password: None)
    shout = app.task(name="shout")(lambda text: None)
    whole = log_in.s("me", "s3cret") | shout.s() | log_in.chunks([("me", "s3cret")], 1)

    said = [
        repr(each) for each in (whole, log_in.s(password="s3cret").set(queue="q"), log_in.map(["s3cret"]))
    ]

    assert "s3cret" not in "".join(said)
    assert said[0].startswith("log_in(***) | shout()")
    assert repr(shout.s("loud")) == "shout('loud')"


def with_secrets() -> tuple[App, Task[..., Any], Task[..., Any]]:
    """An app with two tasks, of which the second has a secret argument."""
    app = App("proj", broker_url="memory://")
    shout = app.task(name="shout")(lambda text, pad="": None)
    return app, shout, app.task(name="log_in", sensitive=("password",))(lambda user, password: None)


def test_parts_that_were_read_from_json_show_no_secrets_of_the_app_that_sends_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, shout, log_in = with_secrets()
    other = App("other")  # that of the moment
    monkeypatch.setattr(_signature, "others", [lambda: other.sender])

    def read(value: Any) -> Any:
        return app.signature(json.loads(json.dumps(value)))

    secret = log_in.s("me", "s3cret")
    chained, grouped, gathered = (
        read(secret | shout.s()),
        read(group(secret, shout.s())),
        read(chord([secret], secret)),
    )
    listed = read({**gathered, "kwargs": {"header": [dict(secret)], "body": dict(secret)}})
    said = [
        *(repr(each) for each in (chained, grouped, gathered, listed)),
        *(
            repr(each)
            for each in (chained.tasks, grouped.tasks, gathered.header, gathered.body, listed.header)
        ),
        repr(shout.s() | dict(secret)),
        repr(group(dict(secret | shout.s()), shout.s())),
        repr(group(dict(group(dict(secret))), shout.s() | dict(secret))),
        repr(read(shout.s(secret, [secret | shout.s()], log_in.map(["s3cret"])))),
        repr(read(shout.s().link(secret)).flatten_links()),
        repr(Workflow().step("a", shout).step("b", dict(secret)).steps),
    ]

    assert "s3cret" not in "\n".join(said)
    assert said[:4] == [
        "log_in(***) | shout()",
        "group(log_in(***), shout())",
        "group(log_in(***)) | log_in(***)",
        "group(log_in(***)) | log_in(***)",
    ]


def test_a_signature_that_no_app_is_known_for_shows_no_secrets_of_the_app_of_the_moment() -> None:
    app, shout, log_in = with_secrets()
    app.set_current()
    try:
        said = [
            repr(signature("log_in", args=("me", "s3cret"))),
            repr(pickle.loads(pickle.dumps(log_in.s("me", "s3cret") | shout.s()))),
            repr(signature(json.loads(json.dumps(group(log_in.s("me", "s3cret")))))),
            repr(Workflow().step("a", signature("log_in", args=("me", "s3cret"))).steps["a"]),
        ]
    finally:
        set_current(None)

    assert "s3cret" not in "".join(said)
    assert said[:3] == ["log_in(***)", "log_in(***) | shout()", "group(log_in(***))"]


def test_the_app_of_the_moment_sends_and_hides_whichever_way_the_signature_came() -> None:
    source = (
        "from amqp_tasks.app import App; from amqp_tasks.canvas import signature; app = App('proj');"
        "app.task(name='log_in', sensitive=('password',))(lambda password: None);"
        "sig = signature('log_in', args=('s3cret',)); print(sig, sig.apply().state)"
    )

    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    assert done.stdout == "log_in(***) SUCCESS\n"


def test_what_is_shown_of_a_call_has_no_secrets_of_the_signatures_that_it_is_given() -> None:
    app, shout, log_in = with_secrets()
    hid = app.task(name="hid", sensitive=("pin",))(lambda call, pin: None)
    secret = log_in.s("me", "s3cret")

    def shown(task: Task[..., Any], *args: Any, **kwargs: Any) -> tuple[str, str]:
        prepared = app.calls.prepare(task, args, kwargs, deadline=time.monotonic() + 5)
        headers = prepared.message.properties.all_headers()
        return str(headers["argsrepr"]), str(headers["kwargsrepr"])

    try:
        said = [
            shown(shout, secret, pad="x" * 3000),
            shown(shout, secret),
            shown(hid, secret, "1234"),
            shown(hid, [secret | shout.s()], pin="1234"),
            shown(shout, "x" * 3000, pad=group(secret, shout.s())),
        ]
    finally:
        app.close()

    assert [args for args, _ in said[:4]] == [
        "(log_in(***),)", "(log_in(***),)", "(log_in(***), ***)", "([log_in(***) | shout()],)",
    ]  # fmt: skip
    assert said[4][1] == "{'pad': group(log_in(***), shout())}"
    assert bounded_repr([secret]) == "[log_in(***)]"
