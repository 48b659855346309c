"""Proofs of origin: the three signature schemes we take and make.

Every check works on the raw bytes of the body and compares digests as bytes in constant time, so a header that is
not ASCII is a mismatch like any other and never a crash. Schemes: GitHub "Validating webhook deliveries", Slack
"Verifying requests from Slack", the Standard Webhooks specification 1.0 (``v1`` with a shared ``whsec_`` key, ``v1a``
with the sender's public ``whpk_`` key; ``svix-`` header names are read too).

A secret that holds several lines is a list, newest first, for rotation: any of them verifies, the first one signs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from pyflue.config import Secret
from pyflue.errors import ConfigurationError, SignatureError

TOLERANCE_SECONDS: Final = 300  # Slack and Standard Webhooks both advise five minutes, either way

_PUBLIC: Final = "whpk_"
_MOST_SIGNATURES: Final = 16  # senders list one per active key; more would only be work for us
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_WEBHOOK_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")


def text_keys(secret: Secret) -> tuple[bytes, ...]:
    """Return the keys of a secret used as text (GitHub, Slack): one per line, newest first."""
    return tuple(line.encode() for line in secret.reveal().splitlines() if line.strip())


class StandardKeys(Struct, frozen=True):
    """The keys of a Standard Webhooks secret: ``shared`` ones sign and verify, ``public`` ones (Ed25519) verify only."""

    shared: tuple[bytes, ...]
    public: tuple[bytes, ...] = ()


def standard_keys(channel: str, secret: Secret) -> StandardKeys:
    """Read a Standard Webhooks secret, one key per line: base64 after ``whsec_``, ``whpk_`` or nothing (shared).

    Raises:
        ConfigurationError: a line is not base64, decodes to nothing, or is a public key not 32 bytes long.
    """
    lines = secret.reveal().split()
    return StandardKeys(
        shared=tuple(_base64_key(channel, line) for line in lines if not line.startswith(_PUBLIC)),
        public=tuple(_base64_key(channel, line) for line in lines if line.startswith(_PUBLIC)),
    )


def _base64_key(channel: str, line: str) -> bytes:
    encoded = line.removeprefix("whsec_").removeprefix(_PUBLIC)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key or (line.startswith(_PUBLIC) and len(key) != 32):
        raise ConfigurationError(
            f"The secret of channel {channel!r} cannot be used.",
            cause="It must be base64 after whsec_ (shared), or 32 bytes of base64 after whpk_ (the sender's public key).",
            fix="Set the secret exactly as the sender shows it.",
        )
    return key


def check_github(channel: str, headers: Mapping[str, str], body: bytes, keys: Sequence[bytes]) -> None:
    """Check ``X-Hub-Signature-256``; the SHA-1 header of old is never looked at.

    Raises:
        SignatureError: the header is missing or malformed, or no key gives this digest.
    """
    received = _required(channel, headers, "x-hub-signature-256")
    expected = [b"sha256=" + _hex(key, body) for key in keys]
    _one_of(channel, received, expected, "x-hub-signature-256")


def check_slack(channel: str, headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now: datetime) -> None:
    """Check ``X-Slack-Signature`` over the version, the timestamp and the body, then the timestamp's age.

    Raises:
        SignatureError: a header is missing or malformed, no key gives this digest, or it is over 300 s old or ahead.
    """
    stamp = _timestamp(channel, headers, "x-slack-request-timestamp")
    received = _required(channel, headers, "x-slack-signature")
    expected = [b"v0=" + _hex(key, b"v0:%d:%b" % (stamp, body)) for key in keys]
    _one_of(channel, received, expected, "x-slack-signature")
    _fresh(channel, stamp, now)


def check_standard(channel: str, headers: Mapping[str, str], body: bytes, keys: StandardKeys, now: datetime) -> str:
    """Check ``webhook-signature`` over the id, the timestamp and the body, then the age; return the ``webhook-id``.

    Raises:
        SignatureError: a header is missing or malformed, no signature fits a key, or it is over 300 s old or ahead.
    """
    family = "webhook" if "webhook-id" in headers else "svix"
    identity = headers.get(f"{family}-id", "")
    if not _WEBHOOK_ID.fullmatch(identity):
        raise SignatureError(channel, "The webhook-id header is missing, or is not 1 to 256 visible ASCII characters.")
    stamp = _timestamp(channel, headers, f"{family}-timestamp")
    received = _required(channel, headers, f"{family}-signature").split()[:_MOST_SIGNATURES]
    content = b"%b.%d.%b" % (identity.encode("ascii"), stamp, body)
    expected = [_shared_signature(key, content).encode() for key in keys.shared]
    matched = False
    for signature in received:
        given = signature.encode("utf-8", "surrogatepass")
        for candidate in expected:
            matched |= hmac.compare_digest(given, candidate)
        matched |= any(_is_signed_by(key, given, content) for key in keys.public)
    if not matched:
        raise SignatureError(channel, "No signature in the header fits the body and the configured secret.")
    _fresh(channel, stamp, now)
    return identity


def _is_signed_by(public_key: bytes, given: bytes, content: bytes) -> bool:
    """Check one ``v1a`` signature. There is nothing secret in this, so it need not take constant time."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not given.startswith(b"v1a,"):
        return False
    try:
        signature = base64.b64decode(given.removeprefix(b"v1a,"), validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except (binascii.Error, InvalidSignature, ValueError):
        return False
    return True


def sign_github(key: bytes, body: bytes) -> dict[str, str]:
    """Return the header GitHub would send with this body."""
    return {"x-hub-signature-256": "sha256=" + _hex(key, body).decode()}


def sign_slack(key: bytes, body: bytes, now: datetime) -> dict[str, str]:
    """Return the two headers Slack would send with this body at this instant."""
    stamp = int(now.timestamp())
    signature = "v0=" + _hex(key, b"v0:%d:%b" % (stamp, body)).decode()
    return {"x-slack-request-timestamp": str(stamp), "x-slack-signature": signature}


def sign_standard(key: bytes, identity: str, body: bytes, now: datetime) -> dict[str, str]:
    """Return the three Standard Webhooks headers for this id and body at this instant."""
    stamp = int(now.timestamp())
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(stamp),
        "webhook-signature": _shared_signature(key, b"%b.%d.%b" % (identity.encode("ascii"), stamp, body)),
    }


def _shared_signature(key: bytes, content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def _hex(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).hexdigest().encode()


def _required(channel: str, headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if not value:
        raise SignatureError(channel, f"The {name} header is missing.")
    return value


def _one_of(channel: str, received: str, expected: Sequence[bytes], name: str) -> None:
    given = received.encode("utf-8", "surrogatepass")
    matched = False
    for candidate in expected:  # all of them, always: the time taken must not tell which key came close
        matched |= hmac.compare_digest(given, candidate)
    if not matched:
        raise SignatureError(channel, f"The {name} header does not fit the body and the configured secret.")


def _timestamp(channel: str, headers: Mapping[str, str], name: str) -> int:
    value = _required(channel, headers, name)
    if not _TIMESTAMP.fullmatch(value):
        raise SignatureError(channel, f"The {name} header is not a time in whole seconds.")
    return int(value)


def _fresh(channel: str, stamp: int, now: datetime) -> None:
    if abs(now.timestamp() - stamp) > TOLERANCE_SECONDS:
        raise SignatureError(channel, f"It was signed more than {TOLERANCE_SECONDS} s from the time here.")
