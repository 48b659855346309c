"""The example compose.yaml serves runs as its README says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "assistant"
PROMPT = 'Where is it? [tool:find_order {"order": "17"}]'


def test_the_assistant_answers_with_what_its_tool_found(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "ASSISTANT_MODEL": "offline/demo",
        "PYFLUE_DATABASE_URL": f"sqlite:///{tmp_path}/pyflue.sqlite3",
    }

    ran = subprocess.run(
        [sys.executable, "-m", "pyflue.cli", "run", "assistant", "--prompt", PROMPT],
        cwd=EXAMPLE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr
    assert "Order 17 left the warehouse this morning." in ran.stdout
