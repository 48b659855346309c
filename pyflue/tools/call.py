"""Call one tool."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from pyflue.errors import ToolError, described
from pyflue.tools.threads import run_in_thread
from pyflue.tools.tool import ToolContext, ToolDefinition


async def call(tool: ToolDefinition, arguments: Mapping[str, Any], context: ToolContext) -> object:
    """Run the tool with decoded arguments and return what it returned, whatever that is.

    A sync function runs in a thread of its own; cancelling the call stops the wait, not the thread. There is no
    timeout here. An ``Exception`` comes out as it is. What would reach further than this call becomes a ``ToolError``:
    leaving the process (``sys.exit``), cancelling a task that nobody asked to cancel, any other ``BaseException``.
    """
    extras: dict[str, Any] = {}
    if tool.wants_context:
        extras[tool.context_parameter] = context
    if tool.wants_signal:
        extras["signal"] = context.signal
    run = partial(tool.execute, **arguments, **extras) if tool.spread else partial(tool.execute, arguments, **extras)
    try:
        result = await run() if _is_async(tool) else await run_in_thread(run)
        return await result if inspect.isawaitable(result) else result
    except SystemExit as error:
        raise ToolError(f"Tool {tool.name} tried to end the process.") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ToolError(f"Tool {tool.name} was cancelled from within.") from error
    except (Exception, GeneratorExit):  # GeneratorExit: this call itself is being thrown away
        raise
    except BaseException as error:
        raise ToolError(described(error)) from error


def _is_async(tool: ToolDefinition) -> bool:
    return inspect.iscoroutinefunction(tool.execute) or inspect.iscoroutinefunction(type(tool.execute).__call__)
