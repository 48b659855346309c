"""Answers customers in a chat thread: looks their orders up, and refunds them."""

from pyflue import ToolContext, ToolError, create_agent, tool

ORDERS = {"17": 49_90, "18": 12_00}  # a shop would ask its database; amounts in cents
REFUNDS: dict[str, str] = {}  # idempotency key to order, as a payment provider keeps them


@tool(retry="safe")
async def find_order(order: str) -> str:
    """Say what an order cost. Reading is safe to repeat, so a process that dies in it costs nothing."""
    if order not in ORDERS:
        raise ToolError(f"There is no order {order}. Ask the customer for the number on the invoice.")
    return f"order {order}: {ORDERS[order] / 100:.2f} EUR"


@tool
async def refund(order: str, context: ToolContext) -> str:
    """Pay an order back. Never repeated by itself; the key makes even a repeated request harmless."""
    REFUNDS.setdefault(context.idempotency_key, order)
    return f"order {order} is refunded"


default = create_agent(
    lambda: {
        "instructions": "You help the customers of a small shop. Look an order up before you refund it.",
        "tools": [find_order, refund],
    },
    limits={"max_turns": 10, "wall_clock": 600},
)
