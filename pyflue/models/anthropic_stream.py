"""From the bytes of a Messages API stream to a ``ModelAnswer``.

``StreamReader`` cuts server-sent events out of chunks that may end anywhere, also inside a character. ``AnswerBuilder``
puts the answer together; it decides nothing about the network. Event shapes are
those the official SDK 2.12 types. Unknown events are skipped and unknown content blocks kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, cast

import msgspec
from msgspec import Raw, Struct

from pyflue.messages import (
    AnswerPart,
    ModelAnswer,
    OtherPart,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolUsePart,
    Usage,
)
from pyflue.models.retry import answer_cut

JsonObject = dict[str, object]

_ABSENT: Final = Raw(b"")

_CUT_SHORT: Final = frozenset({"max_tokens", "model_context_window_exceeded", "refusal", "stop_sequence"})
"""Stop reasons that can end an answer in the middle of a tool call's arguments."""


class StreamReader:
    """Cuts a byte stream into the data of server-sent events. Lines may end in LF, CR LF or CR."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of a line, in pieces: put together once, when the line ends
        self._held = b""  # a CR that an LF may follow
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next bytes; yield the data of every event they complete."""
        block = self._held + chunk
        self._held = b""
        if b"\r" in block:
            block = self._unified(block)
        *lines, rest = block.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest = []
        self._rest.append(rest)
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif not line and self._data:
                yield self._taken()

    def finish(self) -> Iterator[bytes]:
        """Yield the last event if only the blank line after it is missing."""
        rest = b"".join(self._rest)
        if rest.startswith(b"data:"):
            self._data.append(rest[5:])
        if self._data:
            yield self._taken()

    def _unified(self, block: bytes) -> bytes:
        """Make every line end LF. A CR at the very end waits for the next chunk: an LF may follow."""
        if block.endswith(b"\r"):
            self._held = b"\r"
        return block[: len(block) - len(self._held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _taken(self) -> bytes:
        data, self._data = b"\n".join(self._data), []
        return data


class StreamError(Struct, frozen=True):
    """The provider's error inside a stream that began well."""

    type: str = ""
    message: str = ""


class _Counts(Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Started(Struct, frozen=True):
    id: str = ""
    model: str = ""
    usage: _Counts | None = None


class _Delta(Struct, frozen=True):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Event(Struct, frozen=True):
    """Any event of the stream: ``type`` says which of the fields it has."""

    type: str
    index: int = 0
    message: _Started | None = None
    content_block: Raw = _ABSENT
    delta: _Delta | None = None
    usage: _Counts | None = None
    error: StreamError | None = None


class _UnknownDelta(Struct, frozen=True):
    delta: JsonObject


class _BlockStart(Struct, frozen=True):
    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: Raw = _ABSENT


class _BlockKind(Struct, frozen=True):
    type: str


_KNOWN_KINDS: Final = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})

_decode_event = msgspec.json.Decoder(_Event).decode
_decode_kind = msgspec.json.Decoder(_BlockKind).decode
_decode_block = msgspec.json.Decoder(_BlockStart).decode
_decode_delta = msgspec.json.Decoder(_UnknownDelta).decode
_decode_object = msgspec.json.Decoder(JsonObject).decode


class _Block:
    """One content block while it grows."""

    def __init__(self, raw: Raw) -> None:
        kind = _decode_kind(raw).type
        self.start = _decode_block(raw) if kind in _KNOWN_KINDS else _BlockStart(kind)
        self.raw = raw
        self.pieces: list[str] = [self.start.text or self.start.thinking]
        self.signature = self.start.signature
        self.unknown_deltas: list[JsonObject] = []

    def add(self, delta: _Delta, data: bytes) -> None:
        match self.start.type:
            case "text":
                self.pieces.append(delta.text)
            case "thinking":
                self.pieces.append(delta.thinking)
                self.signature += delta.signature
            case "tool_use":
                self.pieces.append(delta.partial_json)
            case _:
                self.unknown_deltas.append(_decode_delta(data).delta)

    def part(self) -> AnswerPart | None:
        """Return the finished part; None if it is a tool call whose arguments are not a JSON object."""
        match self.start.type:
            case "text":
                return TextPart("".join(self.pieces))
            case "thinking":
                return ThinkingPart("".join(self.pieces), self.signature)
            case "redacted_thinking":
                return RedactedThinkingPart(self.start.data)
            case "tool_use":
                arguments = _arguments("".join(self.pieces), self.start.input)
                return None if arguments is None else ToolUsePart(self.start.id, self.start.name, arguments)
            case _:
                return OtherPart(_finished(self.raw, self.unknown_deltas))


def _arguments(streamed: str, given: Raw) -> Raw | None:
    """Return the arguments as they were streamed; without any delta, what the block began with, usually ``{}``."""
    text = streamed.encode().strip() or bytes(given) or b"{}"
    try:
        msgspec.json.decode(text, type=dict[str, Raw])
    except msgspec.DecodeError:
        return None
    return Raw(text)


def _finished(raw: Raw, deltas: list[JsonObject]) -> Raw:
    """Apply deltas to a block of a type we do not know: texts grow, lists get the new item, the rest is replaced."""
    if not deltas:
        return Raw(bytes(raw))
    block = _decode_object(raw)
    streamed_input = ""
    for delta in deltas:
        for key, value in delta.items():
            if key == "type":
                continue
            if key == "partial_json" and isinstance(value, str):
                streamed_input += value
            elif key == "citation":
                _append(block, "citations", value)
            else:
                before = block.get(key)
                block[key] = before + value if isinstance(before, str) and isinstance(value, str) else value
    if streamed_input.strip():
        block["input"] = _lenient(streamed_input)
    return Raw(msgspec.json.encode(block))


def _told_apart(parts: list[AnswerPart]) -> tuple[AnswerPart, ...]:
    """Give a call an id of its own where an answer uses one twice, as some gateways do: each needs its own result."""
    taken: set[str] = set()
    apart: list[AnswerPart] = []
    for part in parts:
        if isinstance(part, ToolUsePart):
            call_id, use = part.id, 1
            while call_id in taken:
                use += 1
                call_id = f"{part.id}_{use}"
            taken.add(call_id)
            apart.append(part if use == 1 else ToolUsePart(call_id, part.name, part.input))
        else:
            apart.append(part)
    return tuple(apart)


def _append(block: JsonObject, key: str, value: object) -> None:
    before = block.get(key)
    items = cast("list[object]", before) if isinstance(before, list) else []
    block[key] = [*items, value]


def _lenient(text: str) -> object:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return Raw(text.encode())


class AnswerBuilder:
    """Puts one answer together from its events. ``done`` once the provider said it is complete."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self.done = False
        self.error: StreamError | None = None
        self._on_text = on_text
        self._started: _Started | None = None
        self._blocks: dict[int, _Block] = {}
        self._stop_reason: str | None = None
        self._usage = Usage()

    def add(self, data: bytes) -> None:
        """Take the data of one event.

        Raises:
            ModelFailure: it is not an event of the Messages API (transient).
        """
        if self.done:  # gateways add a line of their own after the end, such as [DONE]
            return
        try:
            event = _decode_event(data)
            self._take(event, data)
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
            raise answer_cut(f"an event could not be read: {error}") from error

    def answer(self) -> ModelAnswer:
        """Return the complete answer.

        A tool call cut off in its arguments is left out when the stop reason says that the answer was cut short.

        Raises:
            ModelFailure: the stream ended before the provider said why, or a tool call is malformed (transient).
        """
        if self._started is None or self._stop_reason is None or not self.done:
            raise answer_cut("the stream ended without a stop reason")
        parts: list[AnswerPart] = []
        for place in sorted(self._blocks):
            part = self._blocks[place].part()
            if part is not None:
                parts.append(part)
            elif self._stop_reason not in _CUT_SHORT:
                raise answer_cut("the arguments of a tool call are not a JSON object")
        return ModelAnswer(_told_apart(parts), self._stop_reason, self._started.model, self._usage, self._started.id)

    def _take(self, event: _Event, data: bytes) -> None:
        match event.type:
            case "content_block_delta" if event.delta is not None:
                self._blocks[event.index].add(event.delta, data)
                if self._on_text is not None and event.delta.type == "text_delta" and event.delta.text:
                    self._on_text(event.delta.text)
            case "content_block_start" if event.content_block:
                self._start_block(event.index, event.content_block)
            case "message_start" if event.message is not None:
                self._started = event.message
                self._count(event.message.usage or _Counts())
            case "message_delta":
                if event.delta is not None and event.delta.stop_reason is not None:
                    self._stop_reason = event.delta.stop_reason
                if event.usage is not None:
                    self._count(event.usage)
            case "message_stop":
                self.done = True
            case "error":
                self.error = event.error or StreamError()
            case _:
                pass  # ping, content_block_stop, and what later releases of the API add

    def _start_block(self, index: int, raw: Raw) -> None:
        block = self._blocks[index] = _Block(raw)
        if self._on_text is not None and block.start.type == "text" and block.start.text:
            self._on_text(block.start.text)

    def _count(self, counts: _Counts) -> None:
        """Take over counts: they are totals so far, not increments; what is left out stays as it was."""
        before = self._usage
        self._usage = Usage(
            before.input_tokens if counts.input_tokens is None else counts.input_tokens,
            before.output_tokens if counts.output_tokens is None else counts.output_tokens,
            before.cache_read_input_tokens
            if counts.cache_read_input_tokens is None
            else counts.cache_read_input_tokens,
            before.cache_creation_input_tokens
            if counts.cache_creation_input_tokens is None
            else counts.cache_creation_input_tokens,
        )
