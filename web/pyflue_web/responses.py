"""Litestar responses from our answers."""

from __future__ import annotations

from litestar import Response

from pyflue_web.problems import HttpAnswer


def respond(answer: HttpAnswer) -> Response[bytes]:
    return Response(answer.body, status_code=answer.status, media_type=answer.media_type, headers=dict(answer.headers))
