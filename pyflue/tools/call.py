"""Call one tool."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from pyflue.errors import ToolError, described
from pyflue.observers.logs import log
from pyflue.tools.threads import run_in_thread
from pyflue.tools.tool import ToolContext, ToolDefinition

CANCELLED_WITHIN: Final = 5.0  # seconds a cancelled tool may take to put its things in order

_left_running: Final[set[asyncio.Task[object]]] = set()  # a task nobody holds could be collected while it runs


async def call(
    tool: ToolDefinition,
    arguments: Mapping[str, Any],
    context: ToolContext,
    *,
    watch: Callable[[asyncio.Task[object]], None] | None = None,
    cancelled_within: float = CANCELLED_WITHIN,
) -> object:
    """Run the tool with decoded arguments and return what it returned, whatever that is.

    There is no timeout here. Cancelling the call cancels an ``async`` tool and waits ``cancelled_within`` seconds for its
    end; one that goes on is left alone, as is the thread that a sync function runs in. An ``Exception`` comes out as it
    is. What would reach further than this call becomes a ``ToolError``: leaving the process (``sys.exit``), cancelling a
    task that nobody asked to cancel, any other ``BaseException``.

    ``watch`` is given the task the tool runs in, for whoever must be able to stop it before this call hears of it.
    """
    task = asyncio.create_task(_run(tool, arguments, context), name=f"pyflue-tool-{tool.name}")
    if watch is not None:
        watch(task)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        if not task.cancelling():  # a second time would break into how it puts its things in order
            task.cancel()
        _left_running.add(task)
        task.add_done_callback(_ended)
        await asyncio.wait({task}, timeout=cancelled_within)
        if not task.done():
            log("tool.not_cancelled", level="warning", tool=tool.name, dispatch_id=context.dispatch_id)
        raise
    return task.result()


def _ended(task: asyncio.Task[object]) -> None:
    _left_running.discard(task)
    if not task.cancelled():
        task.exception()  # its call is over: nobody is left to hear of it


async def _run(tool: ToolDefinition, arguments: Mapping[str, Any], context: ToolContext) -> object:
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
    except Exception:
        raise
    except BaseException as error:
        raise ToolError(described(error)) from error


def _is_async(tool: ToolDefinition) -> bool:
    return inspect.iscoroutinefunction(tool.execute) or inspect.iscoroutinefunction(type(tool.execute).__call__)
