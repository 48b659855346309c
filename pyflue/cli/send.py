"""``pyflue send``."""

from __future__ import annotations

import sys
from typing import Annotated, Final, Literal

import httpx2
import typer

from pyflue.channels.signed import SampleMessage, SignedDelivery, signed_delivery
from pyflue.cli import EXIT_FAILURE
from pyflue.cli.opening import ConfigOption
from pyflue.cli.terminal import plain
from pyflue.clock import SystemClock
from pyflue.config import Project, Secret, load_project
from pyflue.errors import ChannelError, InvalidInputError
from pyflue.ids import Ids, encode_base32

ChannelName = Literal["github", "slack", "standard"]

TIMEOUT: Final = 15.0  # seconds; platforms give a webhook 3 to 10
VARIABLES: Final[dict[ChannelName, str]] = {
    "github": "GITHUB_WEBHOOK_SECRET",
    "slack": "SLACK_SIGNING_SECRET",
    "standard": "STANDARD_WEBHOOK_SECRET",
}


def command(
    channel: Annotated[ChannelName, typer.Argument(help="The channel.")],
    text: Annotated[str, typer.Argument(help="What is said.")],
    *,
    thread: Annotated[
        str,
        typer.Option(
            help="Where: owner/repo#12 on GitHub, a channel id (or id:thread_ts) on Slack, any name elsewhere."
        ),
    ] = "",
    sender: Annotated[str, typer.Option(help="By whom.")] = "ada",
    delivery: Annotated[str, typer.Option(help="The delivery's id; the same id again is a duplicate.")] = "",
    url: Annotated[str, typer.Option(help="The front's address; [web] host and port otherwise.")] = "",
    show: Annotated[bool, typer.Option("--print", help="Print the signed request instead of sending it.")] = False,
    config: ConfigOption = "pyflue.toml",
) -> None:
    """Sign a test delivery as the platform would, post it to the front, print the answer. Exit 0 if it was taken (2xx)."""
    project = load_project(config)
    clock = SystemClock()
    message = SampleMessage(text, delivery or _new_delivery(Ids(clock)), thread, sender)
    signed = signed_delivery(channel, _secret(project, channel), message, clock.now())
    front = (url or _front(project)).rstrip("/")
    if show:
        _print_request(front, signed)
        return
    answer = _post(front, signed)
    print(f"{answer.status_code} {answer.reason_phrase}  {signed.path}  delivery {plain(message.delivery_id)}")
    if answer.text:
        print(plain(answer.text, lines=True))
    if not answer.is_success:
        raise typer.Exit(EXIT_FAILURE)


def _new_delivery(ids: Ids) -> str:
    return "msg_" + encode_base32(ids.random_bits(128), 26)


def _secret(project: Project, channel: ChannelName) -> Secret:
    secrets = project.secrets
    secret = {
        "github": secrets.github_webhook_secret,
        "slack": secrets.slack_signing_secret,
        "standard": secrets.standard_webhook_secret,
    }[channel]
    if not secret.reveal().strip():
        variable = VARIABLES[channel]
        raise InvalidInputError(
            f"A delivery of channel {channel!r} cannot be signed.",
            cause=f"{variable} is not set.",
            fix=f"Set {variable} to the secret the front has.",
        )
    return secret


def _front(project: Project) -> str:
    """Return where the front of these settings is reached from this machine."""
    web = project.settings.web
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(web.host, web.host)
    return f"http://{host}:{web.port}"


def _print_request(front: str, signed: SignedDelivery) -> None:
    print(f"POST {front}{signed.path}")
    for name, value in signed.headers.items():
        print(f"{name}: {value}")
    print()
    sys.stdout.flush()
    sys.stdout.buffer.write(signed.body + b"\n")  # byte for byte: the signature is over these bytes


def _post(front: str, signed: SignedDelivery) -> httpx2.Response:
    try:
        with httpx2.Client(timeout=TIMEOUT, trust_env=False) as client:
            return client.post(front + signed.path, headers=signed.headers, content=signed.body)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ChannelError(
            f"The front at {front} gave no answer.",
            cause=f"{type(error).__name__}: {error}." if str(error) else f"{type(error).__name__}.",
            fix="Start `pyflue web` or `pyflue dev`, or say where it is with --url.",
        ) from error
