"""From stream bytes to an answer, wherever the network cuts them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from pyflue.messages import (
    ModelAnswer,
    OtherPart,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolUsePart,
    Usage,
)
from pyflue.models.anthropic_stream import AnswerBuilder, StreamReader
from pyflue.models.protocol import ModelFailure

START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "model": "claude-x",
        "content": [],
        "usage": {
            "input_tokens": 10,
            "output_tokens": 1,
            "cache_read_input_tokens": 7,
            "cache_creation_input_tokens": None,
        },
    },
}
STOP = {"type": "message_stop"}
ENDLESS = 200_000  # pieces of a line that does not end; putting it together anew for each takes minutes


def begin(index: int, **block: object) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **fields: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def end(index: int) -> dict[str, object]:
    return {"type": "content_block_stop", "index": index}


def stopped(reason: str | None = "end_turn", **usage: object) -> dict[str, object]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 42, **usage}}


def wire(events: Iterable[dict[str, object]], newline: str = "\n") -> bytes:
    lines = (
        f"event: {event['type']}{newline}data: {json.dumps(event, ensure_ascii=False)}{newline * 2}" for event in events
    )
    return "".join(lines).encode()


def read(data: bytes, cuts: Iterable[int] = ()) -> ModelAnswer:
    reader, builder = StreamReader(), AnswerBuilder(None)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(places):
        for event in reader.feed(data[start:stop]):
            builder.add(event)
    for event in reader.finish():
        builder.add(event)
    return builder.answer()


def answer(*events: dict[str, object]) -> ModelAnswer:
    return read(wire([START, *events]))


EVERYTHING = [
    START,
    {"type": "ping"},
    begin(0, type="thinking", thinking="", signature=""),
    delta(0, type="thinking_delta", thinking="Hm, "),
    delta(0, type="thinking_delta", thinking="naïve 🦊"),
    delta(0, type="signature_delta", signature="c2ln"),
    end(0),
    begin(1, type="redacted_thinking", data="b3BhcXVl"),
    end(1),
    begin(2, type="text", text=""),
    delta(2, type="text_delta", text="Grüße, "),
    delta(2, type="text_delta", text="世界"),
    end(2),
    begin(3, type="tool_use", id="toolu_1", name="lookup", input={}),
    delta(3, type="input_json_delta", partial_json=""),
    delta(3, type="input_json_delta", partial_json='{"z": 1,  "a"'),
    delta(3, type="input_json_delta", partial_json=': "ü"}'),
    end(3),
    stopped("tool_use"),
    STOP,
]
WHOLE = (
    ThinkingPart("Hm, naïve 🦊", "c2ln"),
    RedactedThinkingPart("b3BhcXVl"),
    TextPart("Grüße, 世界"),
)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@given(cuts=st.lists(st.integers(0, 4_000), max_size=12))
def test_chunks_may_end_anywhere_and_lines_in_any_way(newline: str, cuts: list[int]) -> None:
    got = read(wire(EVERYTHING, newline), cuts)

    assert got.content[:3] == WHOLE
    call = got.content[3]
    assert isinstance(call, ToolUsePart)
    assert bytes(call.input) == '{"z": 1,  "a": "ü"}'.encode()


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_stream_that_comes_byte_by_byte_gives_the_same_answer(newline: str) -> None:
    data = wire(EVERYTHING, newline)

    assert msgspec.json.encode(read(data, range(len(data)))) == msgspec.json.encode(read(data))


def test_an_answer_has_its_stop_reason_its_ids_and_its_latest_counts() -> None:
    got = answer(begin(0, type="text", text="Hi"), end(0), stopped("end_turn", cache_read_input_tokens=9), STOP)

    assert (got.stop_reason, got.model, got.response_id) == ("end_turn", "claude-x", "msg_1")
    assert got.usage == Usage(10, 42, 9, 0)
    assert got.text == "Hi"


def test_a_tool_call_without_any_delta_has_empty_arguments() -> None:
    got = answer(begin(0, type="tool_use", id="t", name="now", input={}), end(0), stopped("tool_use"), STOP)

    assert [bytes(call.input) for call in got.tool_calls] == [b"{}"]


def test_a_tool_call_whose_only_delta_is_empty_has_empty_arguments() -> None:
    events = [
        begin(0, type="tool_use", id="t", name="now", input={}),
        delta(0, type="input_json_delta", partial_json=""),
    ]

    assert [bytes(call.input) for call in answer(*events, end(0), stopped("tool_use"), STOP).tool_calls] == [b"{}"]


def test_a_tool_call_that_begins_with_its_arguments_keeps_them() -> None:
    got = answer(
        begin(0, type="tool_use", id="t", name="now", input={"zone": "UTC"}), end(0), stopped("tool_use"), STOP
    )

    assert [json.loads(bytes(call.input)) for call in got.tool_calls] == [{"zone": "UTC"}]


def test_parts_come_in_the_order_of_their_index_also_when_they_grow_together() -> None:
    got = answer(
        begin(0, type="text", text=""),
        begin(1, type="text", text=""),
        delta(1, type="text_delta", text="b"),
        delta(0, type="text_delta", text="a"),
        stopped(),
        STOP,
    )

    assert got.content == (TextPart("a"), TextPart("b"))


def test_a_block_of_an_unknown_type_is_kept_as_it_became() -> None:
    got = answer(
        begin(0, type="server_tool_use", id="srv", name="web_search", input={}),
        delta(0, type="input_json_delta", partial_json='{"query":'),
        delta(0, type="input_json_delta", partial_json=' "x"}'),
        end(0),
        begin(1, type="web_search_tool_result", tool_use_id="srv", content=[{"url": "u"}]),
        end(1),
        begin(2, type="poem", lines="", citations=[]),
        delta(2, type="poem_delta", lines="roses "),
        delta(2, type="poem_delta", lines="are red"),
        delta(2, type="citations_delta", citation={"n": 1}),
        end(2),
        stopped(),
        STOP,
    )

    raws = [json.loads(bytes(part.raw)) for part in got.content if isinstance(part, OtherPart)]
    assert raws == [
        {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv", "content": [{"url": "u"}]},
        {"type": "poem", "lines": "roses are red", "citations": [{"n": 1}]},
    ]


def test_a_block_of_an_unknown_type_may_use_our_field_names_for_something_else() -> None:
    block = {"type": "image", "data": {"base64": "AA=="}, "text": None, "name": ["a"]}

    [part] = answer(begin(0, **block), end(0), stopped(), STOP).content

    assert isinstance(part, OtherPart)
    assert json.loads(bytes(part.raw)) == block


def test_calls_of_one_answer_that_share_an_id_are_told_apart() -> None:
    ids = ["toolu_1", "toolu_1_2", "toolu_1", "toolu_1"]
    got = answer(*(begin(place, type="tool_use", id=each, name="f") for place, each in enumerate(ids)), stopped(), STOP)

    assert [call.id for call in got.tool_calls] == ["toolu_1", "toolu_1_2", "toolu_1_3", "toolu_1_4"]


def test_what_comes_after_the_end_does_not_count() -> None:
    after = b'data: [DONE]\n\ndata: {"type":"error","error":{"type":"api_error"}}\n\n'

    assert read(wire([START, begin(0, type="text", text="ok"), stopped(), STOP]) + after).text == "ok"


def test_a_gateway_may_leave_the_counts_out() -> None:
    start = {"type": "message_start", "message": {"id": "m", "model": "x", "usage": None}}

    assert read(wire([start, begin(0, type="text", text="ok"), stopped(), STOP])).usage == Usage(0, 42)


def test_unknown_events_comments_and_fields_are_skipped() -> None:
    noise = b': comment\n\nevent: later\ndata: {"type":"later_event","index":3}\n\nid: 7\nretry: 100\n\n'

    assert read(noise + wire([START, begin(0, type="text", text="ok"), stopped(), STOP])).text == "ok"


def test_data_over_several_lines_is_one_event() -> None:
    data = wire([START, begin(0, type="text", text="ok"), stopped(), STOP])

    assert read(data.replace(b'"index": 0', b'"index":\ndata: 0')).text == "ok"


def test_the_last_event_may_lack_its_blank_line() -> None:
    assert read(wire([START, begin(0, type="text", text="ok"), stopped(), STOP]).rstrip(b"\n")).text == "ok"


@pytest.mark.parametrize(
    "events",
    [
        [],
        [START],
        [START, begin(0, type="text", text="half")],
        [START, begin(0, type="text", text="whole"), end(0), STOP],
        [START, begin(0, type="text", text="whole"), end(0), stopped(None), STOP],
        [START, begin(0, type="text", text="whole"), end(0), stopped("end_turn")],
        [begin(0, type="text", text="whole"), stopped("end_turn"), STOP],
    ],
)
def test_a_stream_that_ends_without_saying_why_is_a_transient_failure(events: list[dict[str, object]]) -> None:
    with pytest.raises(ModelFailure) as failure:
        read(wire(events))

    assert (failure.value.kind, failure.value.reason_code) == ("transient", "model_answer_cut")


@pytest.mark.parametrize(
    "data", [b"data: <html>\n\n", b'data: {"type":1}\n\n', b'data: {"type":"\xff"}\n\n', b"data: {\n\n"]
)
def test_bytes_that_are_no_event_are_a_transient_failure(data: bytes) -> None:
    with pytest.raises(ModelFailure) as failure:
        read(wire([START]) + data)

    assert failure.value.kind == "transient"


def test_a_delta_for_a_block_that_never_began_is_a_transient_failure() -> None:
    with pytest.raises(ModelFailure) as failure:
        answer(delta(4, type="text_delta", text="x"))

    assert failure.value.kind == "transient"


@pytest.mark.parametrize("streamed", ['{"a":', "[1]", '"text"', "nonsense"])
def test_arguments_that_are_no_object_fail_the_answer(streamed: str) -> None:
    events = [
        begin(0, type="tool_use", id="t", name="n", input={}),
        delta(0, type="input_json_delta", partial_json=streamed),
    ]

    with pytest.raises(ModelFailure) as failure:
        answer(*events, end(0), stopped("tool_use"), STOP)

    assert failure.value.kind == "transient"


def test_a_tool_call_cut_off_by_the_token_limit_is_left_out() -> None:
    got = answer(
        begin(0, type="text", text="I will look"),
        end(0),
        begin(1, type="tool_use", id="t", name="n", input={}),
        delta(1, type="input_json_delta", partial_json='{"query": "long'),
        end(1),
        stopped("max_tokens"),
        STOP,
    )

    assert got.content == (TextPart("I will look"),)
    assert got.stop_reason == "max_tokens"


def test_text_is_shown_as_it_arrives_and_reasoning_is_not() -> None:
    seen: list[str] = []
    builder = AnswerBuilder(seen.append)

    for event in StreamReader().feed(wire(EVERYTHING)):
        builder.add(event)

    assert seen == ["Grüße, ", "世界"]


def test_an_error_event_is_kept_for_whoever_reads_the_stream() -> None:
    builder = AnswerBuilder(None)

    builder.add(b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')

    assert builder.error is not None
    assert builder.error.type == "overloaded_error"
    assert not builder.done


def test_a_raw_part_does_not_hold_on_to_the_event_it_came_from() -> None:
    got = answer(begin(0, type="poem", lines="x"), stopped(), STOP)

    part = got.content[0]
    assert isinstance(part, OtherPart)
    assert isinstance(part.raw, Raw)
    assert bytes(part.raw) == b'{"type": "poem", "lines": "x"}'


@pytest.mark.timeout(20)
def test_a_line_without_an_end_costs_what_it_is_long() -> None:
    reader, piece = StreamReader(), b"x" * 100

    assert not any(list(reader.feed(piece)) for _ in range(ENDLESS))
    assert list(reader.feed(b"\n\n")) == []
