"""The places of which the mutation check switches guarantees off are where it thinks they are."""

from __future__ import annotations

import pytest

from support.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_changes_the_code_as_it_is_now(name: str) -> None:
    mutation = MUTATIONS[name]
    text = (ROOT / mutation.file).read_text()

    compile(mutation.applied_to(text), mutation.file, "exec")
    tests = (mutation.test, *mutation.long_tests)

    for test in tests:
        file, _, function = test.partition("::")
        assert f"def {function.partition('[')[0]}(" in (ROOT / file).read_text()
