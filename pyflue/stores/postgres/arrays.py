"""Arrays as PostgreSQL wants them on the wire, written without asking each element for its type.

psycopg's own array dumper looks at every element to find a common type, and an empty or an all-null list becomes
another type, which is another prepared statement. These three are always ``text[]``, ``bytea[]`` and ``bigint[]``, in
binary (layout: PostgreSQL source, ``array_recv``), and hold no nulls.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct, pack
from typing import Final

from psycopg import AsyncConnection
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper

_TEXT_OID: Final = 25
_BYTEA_OID: Final = 17
_BIGINT_OID: Final = 20
_HEADER: Final = Struct("!iiIii")  # dimensions, has nulls, element type, length, lower bound
_LENGTH: Final = Struct("!i")
_BIGINT: Final = Struct("!iq")


class Texts(tuple[str, ...]):
    """A ``text[]`` parameter."""


class Blobs(tuple[bytes, ...]):
    """A ``bytea[]`` parameter."""


class Numbers(tuple[int, ...]):
    """A ``bigint[]`` parameter."""


def _array(element_oid: int, elements: list[bytes]) -> bytes:
    if not elements:
        return pack("!iiI", 0, 0, element_oid)
    length = _LENGTH.pack
    parts = [_HEADER.pack(1, 0, element_oid, len(elements), 1)]
    for element in elements:
        parts.append(length(len(element)))
        parts.append(element)
    return b"".join(parts)


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = 1009  # text[]

    def dump(self, obj: Iterable[str]) -> bytes:
        return _array(_TEXT_OID, [text.encode() for text in obj])


class _BlobsDumper(Dumper):
    format = Format.BINARY
    oid = 1001  # bytea[]

    def dump(self, obj: list[bytes]) -> bytes:
        return _array(_BYTEA_OID, obj)


class _NumbersDumper(Dumper):
    format = Format.BINARY
    oid = 1016  # bigint[]

    def dump(self, obj: tuple[int, ...]) -> bytes:
        header = _HEADER.pack(1, 0, _BIGINT_OID, len(obj), 1) if obj else pack("!iiI", 0, 0, _BIGINT_OID)
        return header + b"".join([_BIGINT.pack(8, number) for number in obj])


def register(connection: AsyncConnection) -> None:
    """Teach a connection these arrays; and that every ``int`` is a bigint, so that a statement has one form."""
    adapters = connection.adapters
    adapters.register_dumper(Texts, _TextsDumper)
    adapters.register_dumper(Blobs, _BlobsDumper)
    adapters.register_dumper(Numbers, _NumbersDumper)
    adapters.register_dumper(int, Int8BinaryDumper)
