"""One dispatch on one page, for a person."""

from __future__ import annotations

from datetime import datetime

from pyflue.cli.reports import DispatchDetail, ReplyReport
from pyflue.cli.tables import print_fields, print_table
from pyflue.cli.terminal import Terminal, ago, moment
from pyflue.messages import Usage


def print_dispatch(out: Terminal, page: DispatchDetail, now: datetime) -> None:
    """Print a dispatch: what it is, what it waits for, its times, its input and outcome, its replies."""
    out.say(out.paint(page.id, "bold"))
    asked = f", abort asked {ago(page.abort_requested_at, now)}" if page.abort_requested_at else ""
    print_fields(
        out,
        [
            ("status", page.status + ("" if page.settled_at else asked)),
            ("waits for", page.blocked_by),
            ("agent", page.agent),
            ("session", f"{page.session_id}  ({page.instance_id}, {page.session})"),
            ("position", str(page.position)),
            ("attempts", f"{page.attempts} without progress" if page.attempts and page.result is None else ""),
            ("replay of", page.replay_of or ""),
            *_times(page, now),
            ("input", page.input.text),
            ("from", _sender(page)),
            ("answers to", f"{page.input.reply_channel} ({page.input.reply_mode})" if page.input.reply_channel else ""),
            *_outcome(page),
        ],
    )
    if page.replies:
        out.say()
        print_table(
            out,
            ("REPLY", "STATUS", "CHANNEL", "TRIES", "RECEIPT", "TEXT"),
            [_reply(reply, now) for reply in page.replies],
            flexible=("RECEIPT", "TEXT"),
            status="STATUS",
        )


def _times(page: DispatchDetail, now: datetime) -> list[tuple[str, str]]:
    settled = page.settled_at is not None
    times = [
        ("accepted", page.accepted_at),
        ("started", page.started_at),
        ("settled", page.settled_at),
        ("deadline", None if settled else page.deadline_at),
        ("expires", None if settled or page.started_at else page.expires_at),
    ]
    return [(name, f"{moment(at)} UTC  ({ago(at, now)})") for name, at in times if at is not None]


def _sender(page: DispatchDetail) -> str:
    return ", ".join(f"{name} {value}" for name, value in page.input.attributes.items())


def _outcome(page: DispatchDetail) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    if page.error is not None:
        fields.append(("error", f"{page.error.code}: {page.error.message}"))
    if page.result is not None:
        fields += [("result", page.result.text), ("used", _used(page.result.usage, page.result.turns))]
        fields.append(("model", page.result.model))
    return fields


def _used(usage: Usage, turns: int) -> str:
    cached = f", {usage.cache_read_input_tokens} read from cache" if usage.cache_read_input_tokens else ""
    unit = "turn" if turns == 1 else "turns"
    return f"{turns} {unit}, {usage.input_tokens} tokens in, {usage.output_tokens} out{cached}"


def _reply(reply: ReplyReport, now: datetime) -> tuple[str, ...]:
    status = reply.status
    if status == "pending" and reply.available_at > now:
        status += f", {ago(reply.available_at, now)}"
    text = f"{reply.error} — {reply.body}" if reply.error and reply.status != "sent" else reply.body
    return (reply.id, status, reply.channel, str(reply.attempts), reply.receipt, text)
