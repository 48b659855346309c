"""What the fake Messages API can be told to do, and the bytes it does it with.

A reply is chosen by a script posted to the fake, or else by the model's name:

==========================  =========================================================================================
``fake-echo``               ``echo: `` and the last user text; any name not listed here does the same
``fake-text``               a fixed text
``fake-tool-NAME``          calls the tool NAME with ``{}``, then says ``done: `` and the tool's result
``fake-directives``         obeys ``[tool:NAME {json}]`` in the text, and answers as ``offline/echo`` does
``fake-think``              reasoning with a signature, then the echo
``fake-slow-MS``            the echo, with the first byte after MS milliseconds
``fake-drip-MS``            the echo, with MS milliseconds between events
``fake-deltas-N``           the echo, made long enough for N text events
``fake-429-N-S``            the first N requests: 429 with ``retry-after: S``; then the echo
``fake-STATUS-N``           the first N requests: that error (400 401 402 403 404 408 409 413 500 502 503 504 529)
``fake-overflow-N``         the first N requests: 400, "prompt is too long"
``fake-CUT-N``              the first N requests: a stream that goes wrong after half of its events, where CUT is
                            ``overloaded`` or ``failed`` (an error event), ``truncate`` (the body ends in order, but
                            early), ``hangup`` (the connection is closed within the body), ``reset`` (it breaks),
                            ``silence`` (nothing more comes), ``nostop`` (all events, but no stop reason)
==========================  =========================================================================================

A number that is left out means always (N) or 1 (S).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

Cut = Literal["", "overloaded", "failed", "truncate", "hangup", "reset", "silence", "nostop"]

DEFAULT_EVENTS: Final = 20  # text deltas of an answer, if its text is long enough

ERROR_TYPES: Final[dict[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
CUTS: Final[tuple[Cut, ...]] = ("overloaded", "failed", "truncate", "hangup", "reset", "silence", "nostop")


class FakeCall(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call; ``input`` is a JSON object, sent in pieces as the model would write it."""

    name: str
    input: Raw = Raw(b"{}")


class Reply(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One answer of the fake. Delays are milliseconds.

    ``status`` other than 200 sends an error body with ``error_type`` and ``text`` as its message. ``echo`` puts
    ``echo: `` and the last user text behind ``text``. ``blocks`` are content blocks sent whole, before the text.
    ``tool_calls`` make the stop reason ``tool_use``. ``cut`` says how the stream goes wrong halfway. ``chunk_bytes``
    cuts the stream into chunks of that size, wherever that falls. ``newline`` ends the stream's lines.
    """

    text: str = ""
    echo: bool = False
    thinking: str = ""
    tool_calls: tuple[FakeCall, ...] = ()
    blocks: tuple[Raw, ...] = ()
    stop_reason: str = ""
    events: int = DEFAULT_EVENTS
    first_byte_ms: int = 0
    event_ms: int = 0
    status: int = 200
    error_type: str = ""
    headers: dict[str, str] = {}
    cut: Cut = ""
    chunk_bytes: int = 0
    newline: str = "\n"


class Script(Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /_fake/script``: replies to the next requests for ``model`` (``*``: any), in order."""

    replies: tuple[Reply, ...]
    model: str = "*"


class Asked(Struct, frozen=True):
    """What a reply may depend on: the text and tool results after the last answer, and how often this model was asked."""

    text: str
    tool_results: tuple[str, ...]
    hits: int


def reply_by_name(model: str, asked: Asked) -> Reply:
    """Choose a reply by the model's name; see the module's docstring."""
    words = model.split("-")
    if len(words) < 2 or words[0] != "fake":
        return Reply(echo=True)
    kind = words[1]
    numbers = [int(word) for word in words[2:] if word.isdigit()]
    first = numbers[0] if numbers else 0
    match kind:
        case "text":
            return Reply(text="Hello from the fake model.")
        case "tool" if len(words) > 2:
            return _tool("-".join(words[2:]), asked)
        case "think":
            return Reply(thinking="Let me see what was said.", echo=True)
        case "slow":
            return Reply(echo=True, first_byte_ms=first)
        case "drip":
            return Reply(echo=True, event_ms=first)
        case "deltas":
            return Reply(echo=True, text="word " * first, events=first)
        case _:
            fails = not numbers or asked.hits <= first
            return _failing(kind, numbers[1] if len(numbers) > 1 else 1) if fails else Reply(echo=True)


def _tool(name: str, asked: Asked) -> Reply:
    if asked.tool_results:
        return Reply(text=f"done: {', '.join(asked.tool_results)}")
    return Reply(tool_calls=(FakeCall(name),))


def _failing(kind: str, retry_after: int) -> Reply:
    for cut in CUTS:
        if kind == cut:
            return Reply(echo=True, cut=cut)
    if kind == "overflow":
        return Reply(status=400, text="prompt is too long: 215000 tokens > 200000 maximum")
    if kind.isdigit() and int(kind) in ERROR_TYPES:
        headers = {"retry-after": str(retry_after)} if kind == "429" else {}
        return Reply(status=int(kind), text=f"The fake answers {kind}.", headers=headers)
    return Reply(echo=True)


def answer_text(reply: Reply, asked: Asked) -> str:
    """Return the text of an answer."""
    return f"{reply.text}echo: {asked.text}" if reply.echo else reply.text


def error_body(error_type: str, message: str, request_id: str) -> bytes:
    """Write an error as the API does."""
    return msgspec.json.encode(
        {"type": "error", "error": {"type": error_type, "message": message}, "request_id": request_id}
    )


class Rendering(Struct, frozen=True):
    """What is needed to write an answer: its ids, the model's name and how many tokens the request had."""

    model: str
    message_id: str
    input_tokens: int
    text: str

    def blocks(self, reply: Reply) -> Iterator[tuple[Raw, Raw, list[dict[str, str]]]]:
        """Yield the content blocks: whole, as they begin, and the deltas that complete them."""
        if reply.thinking:
            whole = {"type": "thinking", "thinking": reply.thinking, "signature": f"sig-{self.message_id}"}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(reply.thinking, 3)]
            deltas.append({"type": "signature_delta", "signature": whole["signature"]})
            yield _raw(whole), _raw({"type": "thinking", "thinking": "", "signature": ""}), deltas
        for block in reply.blocks:
            yield block, block, []
        if self.text:
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(self.text, reply.events)]
            yield _raw({"type": "text", "text": self.text}), _raw({"type": "text", "text": ""}), deltas
        for place, call in enumerate(reply.tool_calls):
            head = {"type": "tool_use", "id": f"toolu_{self.message_id[4:]}{place:02d}", "name": call.name}
            # Like the API: the first piece is empty, and the block begins with an empty object.
            pieces = ["", *_pieces(bytes(call.input).decode(), 3)]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            yield _raw({**head, "input": call.input}), _raw({**head, "input": {}}), deltas

    def whole(self, reply: Reply) -> bytes:
        """Write the answer as one JSON message."""
        message = self._envelope([block for block, _, _ in self.blocks(reply)])
        return msgspec.json.encode({**message, "stop_reason": stop_reason(reply), "usage": self._usage(self._spoken())})

    def stream(self, reply: Reply) -> list[bytes]:
        """Write the answer as server-sent events, one item each."""
        start = {**self._envelope([]), "stop_reason": None, "usage": self._usage(1)}
        events = [_event("message_start", {"message": start}, reply), _event("ping", {}, reply)]
        for index, (_, begun, deltas) in enumerate(self.blocks(reply)):
            events.append(_event("content_block_start", {"index": index, "content_block": begun}, reply))
            events.extend(_event("content_block_delta", {"index": index, "delta": delta}, reply) for delta in deltas)
            events.append(_event("content_block_stop", {"index": index}, reply))
        delta = {"stop_reason": None if reply.cut == "nostop" else stop_reason(reply), "stop_sequence": None}
        totals = {"output_tokens": self._spoken()}
        events.append(_event("message_delta", {"delta": delta, "usage": totals}, reply))
        events.append(_event("message_stop", {}, reply))
        return events

    def _envelope(self, content: list[Raw]) -> dict[str, object]:
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_sequence": None,
        }

    def _usage(self, output_tokens: int) -> dict[str, int]:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": output_tokens,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
        }

    def _spoken(self) -> int:
        return max(1, len(self.text) // 4)


def stop_reason(reply: Reply) -> str:
    """Return the scripted stop reason, or the one that fits the content."""
    return reply.stop_reason or ("tool_use" if reply.tool_calls else "end_turn")


def error_event(error_type: str, newline: str = "\n") -> bytes:
    """Write an error inside a stream."""
    fields = {"error": {"type": error_type, "message": "The fake breaks this stream."}}
    return _event("error", fields, Reply(newline=newline))


def _event(kind: str, fields: Mapping[str, object], reply: Reply) -> bytes:
    data = msgspec.json.encode({"type": kind, **fields})
    end = reply.newline.encode()
    return b"event: %b%bdata: %b%b%b" % (kind.encode(), end, data, end, end)


def _pieces(text: str, count: int) -> list[str]:
    """Cut a text into at most ``count`` pieces of about the same length."""
    number = min(len(text), max(1, count))
    cuts = [len(text) * place // number for place in range(number + 1)] if number else []
    return [text[start:end] for start, end in pairwise(cuts)]


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))
