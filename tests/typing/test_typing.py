"""The files beside this one pass mypy and pyright in strict mode, ignores used to the last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.timeout(300)
@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_user_code_type_checks_as_written(checker: str, tmp_path: Path) -> None:
    if checker == "mypy":
        command = [
            "-m",
            "mypy",
            "--cache-dir",
            str(tmp_path),
            "--follow-imports=silent",
            str(HERE / "calls.py"),
        ]
    else:
        config = tmp_path / "pyrightconfig.json"
        config.write_text(
            f'{{"include": ["{HERE / "calls.py"}"], "extraPaths": ["{ROOT}", "{ROOT / "routing"}"], '
            '"typeCheckingMode": "standard", "reportUnnecessaryTypeIgnoreComment": "error"}'
        )
        command = ["-m", "pyright", "--project", str(config), "--pythonpath", sys.executable]

    checked = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
