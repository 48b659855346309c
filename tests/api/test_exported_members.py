"""The public API is a list: the same in the package and in its reference, and all of it can be imported."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import msgspec
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


FUNCTIONS = [name for name in pyflue.__all__ if inspect.isfunction(getattr(pyflue, name))]
METHODS = [
    pyflue.PyFlueAgent.session,
    pyflue.PyFlueSession.prompt,
    pyflue.PyFlueSession.abort,
    pyflue.SessionStore.append,
    pyflue.SessionStore.load,
    pyflue.SessionStore.delete,
]
SHAPES = [
    pyflue.AgentCreateContext,
    pyflue.AgentLimits,
    pyflue.AgentRuntimeConfig,
    pyflue.CreatedAgent,
    pyflue.DispatchResult,
    pyflue.HarnessResult,
    pyflue.Project,
    pyflue.PromptCost,
    pyflue.PromptModel,
    pyflue.PromptUsage,
    pyflue.PyFlueEvent,
    pyflue.Receipt,
]


def written(function: object, *, method: bool = False) -> str:
    """Write a signature as the page does: names and defaults, without types."""
    assert inspect.isroutine(function)
    signature = inspect.signature(function)
    given = list(signature.parameters.values())[1 if method else 0 :]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in given]
    return f"{function.__name__}{inspect.Signature(bare)}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_signature_is_documented(name: str) -> None:
    assert f"`{written(getattr(pyflue, name))}`" in PAGE.read_text("utf-8")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__qualname__)
def test_a_methods_signature_is_documented(method: object) -> None:
    assert f"`{written(method, method=True)}`" in PAGE.read_text("utf-8")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_fields_of_a_shape_are_documented(shape: type[msgspec.Struct]) -> None:
    page = PAGE.read_text("utf-8")

    assert [field for field in shape.__struct_fields__ if f"`{field}`" not in page] == []


@pytest.mark.parametrize("field", msgspec.structs.fields(pyflue.AgentLimits), ids=lambda field: field.name)
def test_a_limits_default_is_documented(field: msgspec.structs.FieldInfo) -> None:
    default = "none" if field.default is None else f"{field.default:g}" if field.default < 1e5 else str(field.default)

    assert f"| `{field.name}` | {default} |" in PAGE.read_text("utf-8")


def test_what_a_tool_may_know_is_documented() -> None:
    page = PAGE.read_text("utf-8")

    known = [name for name in vars(pyflue.ToolContext) if not name.startswith("_")]
    assert len(known) > 5
    assert [name for name in known if f"`{name}`" not in page] == []


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
