"""An assistant that answers in GitHub issues, Slack threads, or wherever a signed webhook comes from.

It runs on an Anthropic model; set ASSISTANT_MODEL=offline/demo to try it without a key.
"""

from pyflue import AgentCreateContext, create_agent, tool

ORDERS = {"17": "left the warehouse this morning", "18": "is waiting for payment"}


@tool(retry="safe")  # it only reads, so it may run again after a crash
async def find_order(order: str) -> str:
    """Say where an order is.

    Args:
        order: The order's number, digits only.
    """
    state = ORDERS.get(order)
    return f"Order {order} {state}." if state else f"There is no order {order}."


def assistant(context: AgentCreateContext) -> dict[str, object]:
    return {
        "model": context.env.get("ASSISTANT_MODEL", "anthropic/claude-haiku-4-5"),
        "instructions": "You answer questions about orders, briefly. Look orders up; never guess.",
        "tools": [find_order],
    }


default = create_agent(assistant, limits={"max_turns": 10, "wall_clock": 600})
