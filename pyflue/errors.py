"""Every error of PyFlue, in one place, so that the wording stays consistent and codes stay stable.

    PyFlueError                      what happened, why, what to do; a stable ``code``
    ├── ConfigurationError           settings, agents or tools that cannot work as written
    │   ├── UnknownAgentError
    │   ├── BrokenAgentError         its file cannot be loaded
    │   └── AgentBuildError          its initializer raised
    ├── InvalidInputError            something a caller sent that we refuse
    │   ├── IdempotencyConflictError
    │   ├── QueueFullError
    │   ├── SelfPromptError
    │   └── UnknownIdError
    ├── ChannelError                 what a platform sent us, or answered us
    │   ├── MalformedRequestError    400
    │   ├── SignatureError           401
    │   ├── UnknownChannelError      404
    │   ├── BodyTooLargeError        413
    │   └── MediaTypeError           415
    ├── StoreError
    │   ├── StoreUnavailableError    nothing was begun; try again later
    │   │   └── CommitUnknownError   it may have been committed: read again before going on
    │   ├── SchemaError              the schema is not the one this release knows
    │   ├── DamagedEntryError
    │   └── UnknownEntryKindError
    ├── DispatchFailedError          raised to a caller who waited for an outcome
    │   └── DispatchAbortedError
    └── ToolError                    a tool's own "this did not work", shown to the model

    ControlFlow                      not failures, never logged as such
    ├── LeaseLost                    somebody else has the session now
    └── HandBack                     this process is stopping; the work goes on elsewhere

A class owns its wording and takes facts only. ``str(error)`` is safe to show to the caller: no secret, no stack
trace, no DSN. ``detail`` is for the operator's log. HTTP status codes live in ``pyflue_web/problems.py``.
"""

from __future__ import annotations

from typing import ClassVar


class PyFlueError(Exception):
    """Base of all errors a caller may see."""

    code: ClassVar[str] = "internal"

    def __init__(self, what: str, *, cause: str = "", fix: str = "", detail: str = "") -> None:
        self.what = what
        self.cause = cause
        self.fix = fix
        self.detail = detail
        super().__init__(" ".join(part for part in (what, cause, fix) if part))


class ConfigurationError(PyFlueError, ValueError):
    """Settings, an agent or a tool cannot work as written. Also a ``ValueError``, which PyFlue 0.2 raised here."""

    code = "configuration"


class UnknownAgentError(ConfigurationError):
    """No agent of that name is registered here."""

    code = "agent_unknown"

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        listed = ", ".join(known) or "none"
        super().__init__(
            f"There is no agent named {name!r}.",
            cause=f"Agents found: {listed}.",
            fix=f"Add agents/{name}.py with a `default` made by create_agent(), or correct the name.",
        )


class AgentBuildError(ConfigurationError):
    """The agent's initializer raised, or returned something that is not an agent."""

    code = "agent_failed"

    def __init__(self, agent: str, reason: str, *, detail: str = "") -> None:
        super().__init__(
            f"Agent {agent!r} could not be built.",
            cause=reason,
            fix="Correct its initializer; work that waits for it is tried again.",
            detail=detail,
        )


class BrokenAgentError(ConfigurationError):
    """The file of this agent exists but cannot be loaded; other agents are not affected."""

    code = "agent_broken"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"Agent {name!r} could not be loaded.",
            cause=reason,
            fix="Correct its file and start the process again.",
        )


class InvalidInputError(PyFlueError):
    """Something a caller sent is refused; nothing was admitted."""

    code = "invalid_input"


class IdempotencyConflictError(InvalidInputError):
    """The same idempotency key came with another body."""

    code = "idempotency_conflict"

    def __init__(self, key: str, dispatch_id: str) -> None:
        self.dispatch_id = dispatch_id
        super().__init__(
            f"Idempotency key {key!r} was used before with a different body.",
            cause=f"The first body became dispatch {dispatch_id}.",
            fix="Send the first body again to get its receipt, or use a new key.",
        )


class QueueFullError(InvalidInputError):
    """A mailbox, or the whole deployment, holds as much unsettled work as it may."""

    code = "queue_full"

    def __init__(self, scope: str, limit: int) -> None:
        self.retry_after_seconds = 30
        super().__init__(
            f"The queue of this {scope} is full.",
            cause=f"It holds {limit} unsettled dispatches, which is its limit.",
            fix="Send it again later; nothing was admitted.",
        )


class SelfPromptError(InvalidInputError):
    """A tool prompted the session it runs in, which would wait for itself for ever."""

    code = "self_prompt"

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"Session {session_id} was prompted from inside its own turn.",
            cause="The turn holds the session, so the prompt would wait for itself.",
            fix="Return what the model should know as the tool's result, or prompt another session.",
        )


class UnknownIdError(InvalidInputError):
    """An id names nothing in this database, or nothing of the kind that was asked for."""

    code = "id_unknown"

    def __init__(self, given: str, wanted: str) -> None:
        super().__init__(
            f"{given!r} is not the id of a {wanted}.",
            cause="The database these settings name has none of that id.",
            fix="`pyflue dispatches list` and `pyflue sessions list` show what it has.",
        )


class ChannelError(PyFlueError):
    """A platform's request was refused, or a platform refused ours."""

    code = "channel"


class MalformedRequestError(ChannelError):
    """The request is not what the platform sends."""

    code = "malformed_request"

    def __init__(self, channel: str, reason: str) -> None:
        super().__init__(
            f"The request to channel {channel!r} could not be read.",
            cause=reason,
            fix="Send the body and headers as the platform documents them.",
        )


class SignatureError(ChannelError):
    """The request was not signed with the secret we hold, or was signed too long ago."""

    code = "signature_mismatch"

    def __init__(self, channel: str, reason: str) -> None:
        super().__init__(
            f"The request to channel {channel!r} failed its signature check.",
            cause=reason,
            fix="Compare the secret configured here with the one the platform shows, and check both clocks.",
        )


class UnknownChannelError(ChannelError):
    """No channel of that name is configured."""

    code = "channel_unknown"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no channel named {name!r}.",
            cause="It has no [channels.…] table in pyflue.toml, or its secret is not set.",
            fix="Configure the channel and set its secret in the environment.",
        )


class BodyTooLargeError(ChannelError):
    """The request body is larger than this channel takes."""

    code = "body_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            "The request body is too large.",
            cause=f"The limit is {limit_bytes} bytes.",
            fix="Send a smaller body.",
        )


class MediaTypeError(ChannelError):
    """The request's media type is not one this channel reads."""

    code = "media_type"

    def __init__(self, received: str, expected: str) -> None:
        super().__init__(
            f"The media type {received!r} is not accepted here.",
            cause=f"This channel reads {expected}.",
            fix="Set the content type the platform documents.",
        )


class StoreError(PyFlueError):
    """The durable side could not do what was asked."""

    code = "store"


class StoreUnavailableError(StoreError):
    """The store cannot be reached; nothing was begun."""

    code = "store_unavailable"

    def __init__(self, detail: str = "") -> None:
        super().__init__(
            "The store cannot be reached.",
            cause="The database did not answer in time or refused the connection.",
            fix="Send it again later; nothing was begun.",
            detail=detail,
        )


class CommitUnknownError(StoreUnavailableError):
    """The connection was lost while a write was under way: it may or may not have been committed."""

    code = "commit_unknown"

    def __init__(self, detail: str = "") -> None:
        StoreError.__init__(
            self,
            "It is not known whether the store has it.",
            cause="The connection was lost, or the commit failed, while a write was under way.",
            fix="Look before sending it again, or send it under the same idempotency key.",
            detail=detail,
        )


class SchemaError(StoreError):
    """The database's schema is not the one this release knows."""

    code = "schema"

    def __init__(self, reason: str) -> None:
        super().__init__(
            "The database schema does not fit this release.",
            cause=reason,
            fix="Run `pyflue migrate` with this release, or start the release that made the schema.",
        )


class DamagedEntryError(StoreError):
    """The bytes of a journal entry are not an entry of any release."""

    code = "entry_damaged"

    def __init__(self) -> None:
        super().__init__("A journal entry could not be decoded.", fix="It is quarantined and left out of the context.")


class UnknownEntryKindError(StoreError):
    """A newer release wrote this entry; only a worker of that release may go on with the session."""

    code = "entry_newer"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(
            f"The journal holds an entry of kind {kind!r}, which this release does not know.",
            fix="Let a worker of the newer release work this session.",
        )


class DispatchFailedError(PyFlueError):
    """The dispatch a caller waited for settled ``failed``."""

    code = "dispatch_failed"

    def __init__(self, dispatch_id: str, reason_code: str, message: str) -> None:
        self.dispatch_id = dispatch_id
        self.reason_code = reason_code
        super().__init__(
            f"Dispatch {dispatch_id} failed ({reason_code}).",
            cause=message,
            fix=f"See `pyflue logs {dispatch_id}`; `pyflue dispatches replay {dispatch_id}` runs it again.",
        )


class DispatchAbortedError(DispatchFailedError):
    """The dispatch a caller waited for was aborted."""

    code = "dispatch_aborted"


class ToolError(PyFlueError):
    """Raised by a tool to tell the model that the call did not work; the message is shown to the model."""

    code = "tool_failed"


class ControlFlow(Exception):
    """How a turn ends early without anything being wrong. Never logged as a failure."""


class LeaseLost(ControlFlow):
    """The token is no longer current, or this process has not proved itself alive for too long. Stop, write nothing."""


class HandBack(ControlFlow):
    """This process is stopping: the dispatch goes back to its mailbox without costing an attempt."""


def described(error: BaseException) -> str:
    """Return an exception of the user's code as ``Type: text``; its own ``__str__`` may be what fails."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the user's code, once more
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
