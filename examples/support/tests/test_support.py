"""The agent without a network: a scripted model, fake platforms, and a worker that is killed."""

from agents import support

from pyflue.testing.flow import Flow
from pyflue.testing.models import Held, ScriptedModel, calls


async def test_it_looks_the_order_up_before_it_refunds() -> None:
    model = ScriptedModel(
        calls(("find_order", {"order": "17"})),
        calls(("refund", {"order": "17"})),
        "Order 17 is refunded.",
    )
    async with Flow({"support": support.default}, model=model) as flow:
        receipt = await flow.receive("standard", "I want my money back for order 17.")

        assert (await flow.outcome(receipt)).status == "completed"
        assert await flow.replies() == ["Order 17 is refunded."]
        assert "order 17: 49.90 EUR" in str(flow.model_calls[1].messages)


async def test_an_order_that_does_not_exist_is_told_to_the_model() -> None:
    model = ScriptedModel(calls(("find_order", {"order": "99"})), "Which number is on the invoice?")
    async with Flow({"support": support.default}, model=model) as flow:
        await flow.outcome(await flow.receive("standard", "Refund order 99!"))

        assert "There is no order 99" in str(flow.model_calls[1].messages)


async def test_a_customer_is_refunded_once_even_if_the_worker_dies_right_after() -> None:
    before = len(support.REFUNDS)
    thinking = Held("never said")
    model = ScriptedModel(calls(("refund", {"order": "18"})), thinking, "Done.")
    async with Flow({"support": support.default}, model=model) as flow:
        receipt = await flow.receive("standard", "Refund order 18, please.")
        await thinking.reached.wait()
        await flow.take_over()

        assert (await flow.outcome(receipt)).status == "completed"
        assert len(support.REFUNDS) == before + 1
        assert await flow.replies() == ["Done."]
