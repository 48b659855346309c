"""From raw requests to typed payloads: method, media type, JSON.

Platform payloads are read tolerantly (unknown fields are skipped); what they hold is typed, so everything a
platform may send wrong ends as ``MalformedRequestError`` here and nowhere else.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from pyflue.channels.protocol import Answer, RawRequest
from pyflue.errors import MalformedRequestError, MediaTypeError

T = TypeVar("T")

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"

_QUOTED_VALUE: Final = re.compile(r"'.*'", re.DOTALL)


def media_type(channel: str, request: RawRequest, accepted: tuple[str, ...]) -> str:
    """Return the request's media type, without parameters and in lower case, if it is a POST of an accepted one.

    Raises:
        MalformedRequestError: it is not a POST.
        MediaTypeError: the media type is missing or another one.
    """
    if request.method.upper() != "POST":
        raise MalformedRequestError(channel, "Only POST is read here.")
    received = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if received not in accepted:
        raise MediaTypeError(received[:100], " or ".join(accepted))
    return received


def decode(channel: str, body: bytes | str, shape: type[T]) -> T:
    """Read JSON into a Struct.

    Raises:
        MalformedRequestError: not JSON, not UTF-8, nested too deep, or a field is missing or of another type.
    """
    try:
        if isinstance(body, bytes):
            body.decode()  # fields that are skipped or kept raw are not checked below
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise MalformedRequestError(channel, f"{_QUOTED_VALUE.sub('…', str(error))}.") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MalformedRequestError(channel, "The body is not JSON in UTF-8.") from error
    except RecursionError as error:
        raise MalformedRequestError(channel, "The JSON is nested too deep.") from error


def ignored(reason: str) -> Answer:
    """Answer 200 to a verified request that is not for an agent, and say why in the body."""
    return Answer(reason, body=msgspec.json.encode({"status": "ignored", "reason": reason}))
