"""What the model was shown in a run: rules of the history checker (``history.py``) over the requests it received."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec
from msgspec import Raw, Struct

from pyflue.dispatches import Dispatch
from pyflue.entries import InputEntry
from pyflue.ids import SessionId
from pyflue.testing.recorded import History


def model_history(history: History) -> Iterator[str]:
    """Every request to the model is valid: roles alternate and each tool use is answered by the next message."""
    for number, raw in enumerate(history.requests, 1):
        messages = msgspec.json.decode(raw, type=_Request).messages
        roles = [message.role for message in messages]
        if roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or roles[-1:] != ["user"]:
            yield f"request {number} has the roles {roles}"
        asked: set[str] = set()
        for message in messages:
            blocks = message.blocks
            answered = [block.tool_use_id for block in blocks if block.type == "tool_result"]
            if message.role == "user" and (len(answered) != len(set(answered)) or set(answered) != asked):
                yield f"request {number} answers {sorted(answered)} where {sorted(asked)} was asked"
            asked = {block.id for block in blocks if block.type == "tool_use"}


def seen_by_model(history: History) -> Iterator[str]:
    """The model was shown every accepted message, each once in a request, in queue order and nothing else before it."""
    orders = [
        [_said(history, row) for row in rows if _said(history, row)]
        for rows in history.dispatches_by_session().values()
    ]
    session_of = {text: order for order in orders for text in order}
    strange = {delivery.text for delivery in history.deliveries} - set(session_of)
    never = set(session_of)
    for number, raw in enumerate(history.requests, 1):
        said = _inputs(raw)
        texts = sorted((text for text in session_of if text in said), key=said.index)
        never.difference_update(texts)
        order = session_of[texts[-1]] if texts else []
        if texts != order[: len(texts)] or any(said.count(text) > 1 for text in texts):
            yield f"request {number} shows {texts}, and the mailbox is {order}"
        for text in sorted(text for text in strange if text in said):
            yield f"request {number} shows {text!r}, which no journal holds"
    for text in sorted(never):
        yield f"the model was never shown {text!r}"


def shown_unchanged(history: History) -> Iterator[str]:
    """What the model was shown stays: a later request of a session begins with everything an earlier one held."""
    for session, requests in _by_session(history).items():
        for (before, shorter), (after, longer) in pairwise(sorted(requests, key=lambda one: len(one[1]))):
            if longer[: len(shorter)] != shorter:
                yield f"{session}: requests {before} and {after} begin differently"


def answers_shown(history: History) -> Iterator[str]:
    """A request shows the answer to every message before its own, as it was recorded."""
    sessions = history.dispatches_by_session()
    for session, requests in _by_session(history).items():
        for number, shown in requests:
            asked = "\n".join(block.text for role, block in shown if role == "user")
            told = "\n".join(block.text for role, block in shown if role == "assistant")
            seen = [row for row in sessions[session] if (said := _said(history, row)) and said in asked]
            for row in seen[:-1]:
                if row.result and row.result.text not in told:
                    yield f"request {number} leaves out the answer of {row.id}"


def asked_again(history: History) -> Iterator[str]:
    """The model is not asked again for what is recorded: the requests of a session only grow."""
    again: list[str] = []
    for session, requests in _by_session(history).items():
        longest = 0
        for number, shown in requests:
            if len(shown) < longest:
                again.append(f"{session}: request {number} asks for an answer that an earlier request showed")
            longest = max(longest, len(shown))
    yield from again if len(again) > history.bounds.asked_again else ()


class _Block(Struct, frozen=True):
    """One content block, without the cache breakpoint that moves from request to request."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw()
    tool_use_id: str = ""
    content: Raw = Raw()
    is_error: bool = False


class _Message(Struct, frozen=True):
    role: str
    content: str | list[_Block]

    @property
    def blocks(self) -> list[_Block]:
        return [_Block("text", self.content)] if isinstance(self.content, str) else self.content


class _Request(Struct, frozen=True):
    messages: list[_Message]


_Shown = list[tuple[str, _Block]]


def _by_session(history: History) -> dict[SessionId, list[tuple[int, _Shown]]]:
    """Return each session's requests as numbers and flat lists of blocks, in order of arrival."""
    said = [(text, row.session_id) for row in history.stored.dispatches if (text := _said(history, row))]
    sessions: dict[SessionId, list[tuple[int, _Shown]]] = {}
    for number, raw in enumerate(history.requests, 1):
        inputs = _inputs(raw)
        session = next((session for text, session in said if text in inputs), None)
        if session is not None:
            messages = msgspec.json.decode(raw, type=_Request).messages
            shown = [(message.role, block) for message in messages for block in message.blocks]
            sessions.setdefault(session, []).append((number, shown))
    return sessions


def _inputs(raw: Raw) -> str:
    """Return what the users said in a request: tool results and answers may quote it."""
    messages = msgspec.json.decode(raw, type=_Request).messages
    said = [message for message in messages if message.role == "user"]
    return "\n".join(block.text for message in said for block in message.blocks if block.type == "text")


def _said(history: History, row: Dispatch) -> str:
    """Return the sender's unique text in a dispatch whose input was read."""
    if not any(isinstance(entry, InputEntry) for entry in history.entries_of(row)):
        return ""
    return next((delivery.text for delivery in history.deliveries if delivery.text in row.input.text), "")
