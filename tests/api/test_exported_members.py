"""The public API is a list: the same in the package and in its reference, and all of it can be imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyflue

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


def documented() -> list[str]:
    """Return the names in the first column of the tables headed ``name``."""
    names: list[str] = []
    in_names = False
    for line in PAGE.read_text("utf-8").splitlines():
        if not line.startswith("|"):
            in_names = False
        elif line.startswith("| name |"):
            in_names = True
        elif in_names and (match := re.match(r"\| `(\w+)` \|", line)):
            names.append(match[1])
    return names


def test_the_exported_names_are_the_documented_ones() -> None:
    assert sorted(documented()) == sorted(pyflue.__all__)


def test_no_name_is_listed_twice_and_the_list_is_sorted() -> None:
    assert pyflue.__all__ == sorted(set(pyflue.__all__))
    assert len(documented()) == len(set(documented()))


@pytest.mark.parametrize("name", pyflue.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(pyflue, name) is not None
    assert name in dir(pyflue)


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pyflue.nothing


def test_using_the_definitions_does_not_load_what_only_a_running_process_needs() -> None:
    script = (
        "import sys\n"
        "from pyflue import create_agent, define_tool, tool\n"
        "print(sorted({'anthropic', 'litestar', 'dramatiq', 'redis', 'psycopg'} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert done.stdout == "[]\n", done.stderr


def test_the_references_example_is_a_tool_that_works() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    scope: dict[str, object] = {}

    exec(example, scope)

    refund = scope["refund"]
    assert isinstance(refund, pyflue.ToolDefinition)
    assert refund.decode(b'{"order":"A-1042","cents":5}') == {"order": "A-1042", "cents": 5}
    with pytest.raises(pyflue.ToolError):
        refund.decode(b'{"order":"B-1","cents":5}')
