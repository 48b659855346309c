"""Define tools: ``@tool`` on a typed function, or ``define_tool`` with a schema written by hand."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args, overload

import msgspec
from msgspec import Raw

from pyflue.errors import ConfigurationError
from pyflue.tools.arguments import SchemaArguments, TypedArguments
from pyflue.tools.docstrings import first_paragraph, parameter_descriptions
from pyflue.tools.schema import check_schema, read_signature
from pyflue.tools.tool import EMPTY_SCHEMA, RetryPolicy, ToolContext, ToolDefinition, unimplemented, unread

TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # the Messages API's rule for tool names
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


@overload
def tool(function: Callable[..., Any], /) -> ToolDefinition: ...
@overload
def tool(
    *, name: str = "", description: str = "", retry: RetryPolicy = "never", timeout: float | None = None
) -> Callable[[Callable[..., Any]], ToolDefinition]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    description: str = "",
    retry: RetryPolicy = "never",
    timeout: float | None = None,
) -> ToolDefinition | Callable[[Callable[..., Any]], ToolDefinition]:
    """Make a tool of a function, sync or async, from its name, type hints and docstring.

    The model sees the docstring's first paragraph, and for each parameter its type, its ``msgspec.Meta`` limits and
    description, or the docstring's ``Args:`` line. A parameter annotated ``ToolContext`` is not shown to the model; the
    call's context is passed to it. A sync function runs in a thread, which a timeout (in seconds) cannot stop.
    ``retry="safe"`` says that running it again after a crash, with the same idempotency key, does no harm.

    Raises:
        ConfigurationError: the name is not one the model's API takes, or a parameter has no annotation, a type that
            JSON cannot carry, or cannot be passed by name.
    """

    def define(target: Callable[..., Any]) -> ToolDefinition:
        return _from_function(target, name, description, retry, timeout)

    return define if function is None else define(function)


def define_tool(
    name: str,
    execute: Callable[..., Any] | None = None,
    *,
    description: str = "",
    parameters: Mapping[str, Any] | None = None,
    retry: RetryPolicy = "never",
    timeout: float | None = None,
) -> ToolDefinition:
    """Make a tool from a JSON Schema and a function that takes the arguments as one mapping, sync or async.

    ``execute`` is also passed the call's context if it has a parameter annotated ``ToolContext`` or named ``context``,
    and the abort signal if it has one named ``signal``. Arguments are checked against ``parameters`` before each call,
    as far as ``pyflue.tools.arguments.Rules`` says. ``timeout`` is in seconds. A tool without ``execute`` can be put
    in a profile, but an agent that has it cannot be built.

    Raises:
        ConfigurationError: the name or the schema is not one the model's API takes, or ``execute`` takes no argument.
    """
    _check(name, retry, timeout)
    run = execute or unimplemented
    schema, rules = check_schema(name, msgspec.json.decode(EMPTY_SCHEMA) if parameters is None else parameters)
    context_parameter, wants_signal = _extras(name, run)
    return ToolDefinition(
        name=name,
        description=description,
        parameters=schema,
        execute=run,
        decode=SchemaArguments(name, rules),
        retry=retry,
        timeout=timeout,
        wants_context=bool(context_parameter),
        context_parameter=context_parameter or "context",
        wants_signal=wants_signal,
    )


def completed(definition: ToolDefinition) -> ToolDefinition:
    """Return a definition written as a value as ``define_tool`` makes it; any other as it is.

    Raises: as ``define_tool``.
    """
    if definition.decode is not unread:
        return definition
    given = definition.parameters
    return define_tool(
        definition.name,
        definition.execute,
        description=definition.description,
        parameters=msgspec.json.decode(given, type=dict[str, Any]) if isinstance(given, Raw) else given,
        retry=definition.retry,
        timeout=definition.timeout,
    )


def _from_function(
    function: Callable[..., Any], name: str, description: str, retry: RetryPolicy, timeout: float | None
) -> ToolDefinition:
    if not callable(function):
        raise ConfigurationError(
            "A tool must be a function.", cause=f"It is a {type(function).__name__}.", fix="Decorate a function."
        )
    name = name or _name_of(function)
    _check(name, retry, timeout)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"Tool {name!r} is a generator.",
            cause="A tool gives one result.",
            fix="Return the result instead of yielding.",
        )
    docstring = inspect.getdoc(function)
    signature = read_signature(function, name, parameter_descriptions(docstring))
    return ToolDefinition(
        name=name,
        description=description or first_paragraph(docstring),
        parameters=signature.schema,
        execute=function,
        decode=TypedArguments(name, signature.arguments),
        retry=retry,
        timeout=timeout,
        wants_context=bool(signature.context_parameter),
        context_parameter=signature.context_parameter or "context",
        spread=True,
    )


def _name_of(function: Callable[..., Any]) -> str:
    if inspect.isroutine(function):
        return str(function.__name__)
    return type(function).__name__


def _check(name: str, retry: str, timeout: float | None) -> None:
    if not TOOL_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name[:80]!r} cannot be the name of a tool.",
            cause="The model's API takes 1 to 64 ASCII letters, digits, underscores and dashes.",
            fix="Give it a name of that form.",
        )
    if retry not in get_args(RetryPolicy):
        raise ConfigurationError(
            f"Tool {name!r} has retry={retry!r}.", fix='Use "safe" if running it twice does no harm, else "never".'
        )
    if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
        raise ConfigurationError(f"Tool {name!r} has timeout={timeout!r}.", fix="Use a positive number of seconds.")


def _extras(name: str, execute: Callable[..., Any]) -> tuple[str, bool]:
    """Return the name of the parameter that takes the context, or nothing, and whether one takes the signal."""
    try:
        parameters = list(inspect.signature(execute, eval_str=False).parameters.values())
    except ValueError:
        return "", False  # a builtin that does not tell: it gets the arguments alone
    if not parameters or parameters[0].kind not in _POSITIONAL:
        raise ConfigurationError(
            f"The function of tool {name!r} takes no argument.",
            cause="It is called with the arguments as one mapping.",
            fix="Give it one parameter, or use @tool on a function with typed parameters.",
        )
    others = parameters[1:]
    context = next((each.name for each in others if each.name == "context" or _is_context(each.annotation)), "")
    return context, any(each.name == "signal" for each in others)


def _is_context(annotation: object) -> bool:
    """Tell whether an annotation is ``ToolContext``, also when annotations are kept as text."""
    return annotation is ToolContext or (isinstance(annotation, str) and annotation.split(".")[-1] == "ToolContext")
