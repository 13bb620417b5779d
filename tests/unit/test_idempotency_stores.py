"""Stores of idempotency keys: who has a key, until when, and what becomes of it. Memory and Redis alike."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
import redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.idempotency import Claim, ClaimState, Holder, IdempotencyStore, MemoryStore, _redis
from amqp_tasks.idempotency._redis import RedisStore
from amqp_tasks.settings import ResultUrl
from support import eventually
from support.fake_deliveries import FakeClock
from support.redis import RedisServer
from support.tls import tls_in_front, write_certificate

OWN, TAKEN = Claim(state=ClaimState.OWN), Claim(state=ClaimState.TAKEN)
A, B = Holder("a", "run 1"), Holder("b", "run 1")
A_AGAIN = Holder("a", "run 2")


def done(value: bytes) -> Claim:
    return Claim(state=ClaimState.DONE, value=value)


@pytest.fixture(scope="module", autouse=True)
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[IdempotencyStore]:
    made: IdempotencyStore
    if request.param == "memory":
        made = MemoryStore()
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        server.flush()
        made = RedisStore(ResultUrl.parse(server.url))
    yield made
    made.close()


class Claims:
    """A store with times that do not matter."""

    def __init__(self, store: IdempotencyStore) -> None:
        self._store = store

    def __call__(self, holder: Holder, key: str = "k", lease: float = 60.0, **more: bool) -> Claim:
        return self._store.claim(key, holder, seconds=60, lease=lease, **more)


@pytest.fixture
def claim(store: IdempotencyStore) -> Claims:
    return Claims(store)


@pytest.fixture
def tls_port(redis_server: RedisServer, tmp_path: Path) -> Iterator[int]:
    redis_server.flush()
    with tls_in_front(("127.0.0.1", redis_server.port), *write_certificate(tmp_path)) as port:
        yield port


def test_a_server_with_tls_is_verified_by_the_authorities_that_the_url_names(
    tls_port: int, tmp_path: Path
) -> None:
    place = f"rediss://127.0.0.1:{tls_port}/0"

    with (
        closing(RedisStore(ResultUrl.parse(place))) as store,
        pytest.raises(redis.ConnectionError, match="self-signed"),
    ):
        Claims(store)(A)
    with closing(RedisStore(ResultUrl.parse(f"{place}?ssl_ca_certs={tmp_path}/cert.pem"))) as store:
        assert Claims(store)(A) == OWN


def test_a_certificate_for_another_host_is_refused_whatever_the_version_of_redis_does_by_default(
    tls_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "Redis", partial(redis.Redis, ssl_check_hostname=False))  # as before redis 6
    url = f"rediss://localhost:{tls_port}/0?ssl_ca_certs={tmp_path}/cert.pem"

    with (
        closing(RedisStore(ResultUrl.parse(url))) as store,
        pytest.raises(redis.ConnectionError, match="ostname mismatch"),
    ):
        Claims(store)(A)


def test_a_file_that_the_url_names_and_is_not_there_is_told_before_anybody_is_asked() -> None:
    url = ResultUrl.parse("rediss://host/0?ssl_ca_certs=/nowhere/ca.pem")

    with pytest.raises(ConfigurationError, match=r"there is no file '/nowhere/ca\.pem' for ssl_ca_certs"):
        RedisStore(url)


def test_a_claim_is_its_owners_until_he_has_finished(store: IdempotencyStore, claim: Claims) -> None:
    assert claim(A) == OWN
    assert claim(A) == OWN
    assert claim(B) == TAKEN
    assert claim(B, "other") == OWN

    store.finish("k", A, b"value", seconds=60)

    assert claim(B) == claim(A) == claim(A_AGAIN) == done(b"value")


def test_two_runs_of_one_owner_do_not_have_a_claim_at_the_same_time(
    store: IdempotencyStore, claim: Claims
) -> None:
    assert claim(A) == OWN
    assert claim(A_AGAIN) == TAKEN

    store.rest("k", A_AGAIN)  # is not its to give
    assert claim(A_AGAIN) == TAKEN
    store.rest("k", A)

    assert claim(A_AGAIN) == OWN
    assert claim(A) == TAKEN


def test_a_claim_that_rests_is_nobody_elses(store: IdempotencyStore, claim: Claims) -> None:
    claim(A)
    store.rest("k", A)

    assert claim(B) == TAKEN


def test_a_run_that_is_known_to_be_over_is_succeeded_by_its_owner_and_nobody_else(claim: Claims) -> None:
    claim(A)

    assert claim(B, is_successor=True) == TAKEN
    assert claim(A_AGAIN, is_successor=True) == OWN
    assert claim(A) == TAKEN


def test_a_lease_that_is_over_is_succeeded_by_its_owner_and_nobody_else(claim: Claims) -> None:
    claim(A, lease=0.02)

    eventually(lambda: claim(A_AGAIN) == OWN)
    assert claim(B) == TAKEN


def test_a_lease_that_is_renewed_is_not_over(store: IdempotencyStore, claim: Claims) -> None:
    claim(A, lease=0.02)
    claim(B, "other", lease=0.02)

    store.renew("k", A, lease=60)

    eventually(lambda: claim(Holder("b", "run 2"), "other") == OWN)
    assert claim(A_AGAIN) == TAKEN


def test_who_was_succeeded_renews_and_releases_nothing(store: IdempotencyStore, claim: Claims) -> None:
    claim(A)
    claim(A_AGAIN, is_successor=True)

    store.renew("k", A, lease=60)
    store.release("k", A)

    assert claim(A) == TAKEN
    assert claim(B) == TAKEN
    store.rest("k", A_AGAIN)
    assert claim(A) == OWN


def test_what_is_released_is_anybodys(store: IdempotencyStore, claim: Claims) -> None:
    claim(A)

    store.release("k", B)
    assert claim(B) == TAKEN
    store.release("k", A)
    store.release("k", A)

    assert claim(B) == OWN


def test_what_is_done_cannot_be_released(store: IdempotencyStore, claim: Claims) -> None:
    claim(A)
    store.finish("k", A, b"", seconds=60)

    store.release("k", A)
    store.renew("k", A, lease=60)

    assert claim(B) == done(b"")


def test_what_has_expired_is_anybodys(store: IdempotencyStore, claim: Claims) -> None:
    store.claim("claimed", A, seconds=0.02, lease=0.02)
    store.finish("finished", A, b"", seconds=0.02)

    for key in ("claimed", "finished"):
        eventually(lambda key=key: claim(B, key) == OWN)  # type: ignore[misc]


def test_redis_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redis, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(ResultUrl.parse(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))

        with pytest.raises(RedisTimeoutError):
            Claims(store)(A, "unanswered")

        assert _connections_to(silent) == 1
    store.close()


def _connections_to(server: socket.socket) -> int:
    server.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize("owner", ["owner-{}", "owner"])
def test_of_claims_at_the_same_time_one_wins(claim: Claims, owner: str) -> None:
    barrier, won = threading.Barrier(8), list[int]()

    def contend(number: int) -> None:
        barrier.wait(10)
        if claim(Holder(owner.format(number), f"run {number}")).state is ClaimState.OWN:
            won.append(number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(won) == 1


def test_the_memory_of_a_process_does_not_grow_with_what_has_expired() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    for number in range(100):
        store.finish(f"k{number}", A, b"", seconds=10)
    clock.seconds += 11

    store.claim("k", A, seconds=10, lease=10)

    assert len(store._known) == 1
