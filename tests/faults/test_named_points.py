"""The connections of callers and workers are cut at named points of the protocol, and the network misbehaves otherwise.

Every run ends with the law of conservation: what was accepted ran, and what ran twice was touched by a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support import TcpProxy, Vhost
from support.conservation import Outcome
from support.eventually import let_pass, wait_until
from support.fault_run import FaultRun, fault_run
from support.points import POINTS

pytestmark = pytest.mark.timeout(120)

SETTING_UP = (
    "during login", "during open", "during channel.open", "during declare",
)  # fmt: skip
CALLING = (
    *SETTING_UP, "during confirm.select", "before the publish", "within the publish", "before the confirm",
    "within the confirm", "after the confirm",
)  # fmt: skip
WORKING = (
    *SETTING_UP, "during qos", "during consume", "within the delivery", "after the delivery", "before the ack",
    "within the ack", "after the ack", "before the publish", "within the publish", "before the confirm",
)  # fmt: skip
PUBLISH_TIMEOUT = 30.0


@pytest.fixture
def before_callers(vhost: Vhost) -> Iterator[TcpProxy]:
    """Stands before the broker for those who call and wait for results."""
    with TcpProxy(vhost.url, knows_frames=True) as made:
        yield made


@pytest.fixture
def before_workers(vhost: Vhost) -> Iterator[TcpProxy]:
    """Stands before the broker for the workers."""
    with TcpProxy(vhost.url, knows_frames=True) as made:
        yield made


@pytest.fixture
def run(
    vhost: Vhost, before_callers: TcpProxy, before_workers: TcpProxy, tmp_path: Path
) -> Iterator[FaultRun]:
    """Two workers, a caller and one who waits for results, each side behind a proxy."""
    with fault_run(
        before_workers.url_for(),
        folder=tmp_path,
        workers=2,
        processes=1,
        callers=1,
        gets=(30.0,),
        env={"AMQP_TASKS_BROKER_HEARTBEAT": "2"},
        caller_url=before_callers.url_for(),
        check_url=vhost.url,
    ) as made:
        yield made


def _check(outcome: Outcome) -> None:
    assert outcome.refused | outcome.unknown == set()
    assert outcome.slowest_submit < PUBLISH_TIMEOUT
    assert outcome.no_values == {}
    assert outcome.values
    assert set(outcome.statuses) == {0}


@pytest.mark.parametrize(("side", "names"), [("callers", CALLING), ("workers", WORKING)])
def test_promise_06_a_cut_at_any_point_of_the_protocol_loses_nothing(
    run: FaultRun, before_callers: TcpProxy, before_workers: TcpProxy, side: str, names: tuple[str, ...]
) -> None:
    proxy = before_callers if side == "callers" else before_workers
    run.start()

    for name in names:
        with run.fault(f"{side}: {name}"):
            proxy.cut_at(POINTS[name])
            if name.startswith("during"):
                proxy.cut()  # it comes when they connect again
            assert proxy.was_at_point.wait(20), f"nobody came to the point {name!r}"
            run.wait_done(5)  # until then somebody may begin what is not his any more

    run.wait_done(10)
    _check(run.finish())


@pytest.mark.parametrize(
    ("direction", "seconds"),
    [
        ("both", 0.0),
        pytest.param("both", 15.0, marks=pytest.mark.long),
        pytest.param("to broker", 5.0, marks=pytest.mark.long),
        pytest.param("to client", 5.0, marks=pytest.mark.long),
    ],
)
def test_promise_12_a_network_that_swallows_everything_is_survived_by_all(
    run: FaultRun, before_callers: TcpProxy, before_workers: TcpProxy, direction: str, seconds: float
) -> None:
    run.start()
    proxies = (before_callers, before_workers)
    open_before = [(proxy.accepted, proxy.connection_count) for proxy in proxies]

    with run.fault(f"black hole {direction}"):
        for proxy in proxies:
            proxy.blackhole() if direction == "both" else proxy.half_open(to_client=direction == "to client")
        for proxy, (accepted, count) in zip(proxies, open_before, strict=True):
            # Two heartbeats of two seconds, and each of them has given up what says nothing and come anew.
            assert wait_until(partial(_has_accepted, proxy, accepted + count), 25)
        let_pass(seconds)
        for proxy in proxies:
            proxy.cut()
            proxy.resume()
    run.wait_done(20)

    _check(run.finish())


def _has_accepted(proxy: TcpProxy, count: int) -> bool:
    return proxy.accepted >= count


@pytest.mark.parametrize("kind", ["latency", pytest.param("throttle", marks=pytest.mark.long)])
def test_a_slow_network_loses_and_refuses_nothing(
    run: FaultRun, before_callers: TcpProxy, before_workers: TcpProxy, kind: str
) -> None:
    run.start()
    proxies = (before_callers, before_workers)

    with run.fault(kind):
        for proxy in proxies:
            proxy.delay(0.2) if kind == "latency" else proxy.throttle(20_000)
        run.wait_done(10)
    for proxy in proxies:
        proxy.resume()
    run.wait_done(10)

    _check(run.finish())
