"""Every scenario in full length, with any system: `make faults` prints the table of what was seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import PrivateNode
from support.fault_table import Figures
from support.scenarios import LONG, SCENARIOS, run_scenario

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_in_full_keeps_the_law(
    private_node: PrivateNode, system: str, name: str, figures: Figures, tmp_path: Path
) -> None:
    """A peer's figures go to the table, whatever they are; ours, if they do."""
    outcome = run_scenario(name, private_node, folder=tmp_path, system=system, size=LONG)

    figures.add(SCENARIOS[name].title, system, outcome)
