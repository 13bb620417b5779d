"""A fault test that cannot fail shows nothing: each guarantee is switched off in a copy, and its tests must fail."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support import BrokerNode
from support.mutations import MUTATIONS, Mutation, copy_of_package, run_against

LONG_TESTS = [(mutation, test) for mutation in MUTATIONS.values() for test in mutation.long_tests]


@pytest.fixture
def told(broker: BrokerNode) -> dict[str, str]:
    """Where the broker of this run is, for tests that are run from a test, and that nobody need be patient with: they are to fail."""
    management = broker.management
    parts = urlsplit(management.base)
    return {
        "AMQP_TASKS_TEST_PATIENCE": "1",
        "AMQP_TASKS_TEST_BROKER_URL": broker.url,
        "AMQP_TASKS_TEST_MANAGEMENT_URL": f"{parts.scheme}://{management.user}:{management.password}@{parts.netloc}",
    }


def _must_fail(test: str, says: str, mutation: Mutation, folder: Path, told: dict[str, str]) -> str:
    status, output = run_against(copy_of_package(folder, mutation), [test], told, within=170)

    assert status == pytest.ExitCode.TESTS_FAILED, output
    # An error is the law's, judged when the test is over.
    assert re.search(rf"(FAILED|ERROR) {re.escape(test)}", output), output
    assert re.search(says, output), output
    return output


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "name",
    [
        name if mutation.is_quick else pytest.param(name, marks=pytest.mark.long)
        for name, mutation in MUTATIONS.items()
    ],
)
def test_the_fault_test_of_a_guarantee_fails_when_that_is_switched_off(
    name: str, tmp_path: Path, told: dict[str, str]
) -> None:
    """Row U086."""
    mutation = MUTATIONS[name]

    output = _must_fail(mutation.test, mutation.says, mutation, tmp_path, told)
    assert not mutation.breaks_law or re.search(r"^E .*lost: \d", output, re.MULTILINE), output


@pytest.mark.long
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("mutation", "test"), LONG_TESTS, ids=lambda it: it if isinstance(it, str) else "")
def test_other_fault_tests_of_it_fail_too(
    mutation: Mutation, test: str, tmp_path: Path, told: dict[str, str]
) -> None:
    _must_fail(test, "assert|Error|DID NOT RAISE", mutation, tmp_path, told)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_all_of_them_pass_with_a_copy_that_is_not_changed(tmp_path: Path, told: dict[str, str]) -> None:
    tests = [mutation.test for mutation in MUTATIONS.values()] + [test for _, test in LONG_TESTS]

    status, output = run_against(copy_of_package(tmp_path, None), tests, told, within=280)

    assert status == 0, output
