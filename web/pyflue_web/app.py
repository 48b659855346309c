"""The front as one ASGI application."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, Response, asgi
from litestar.di import Provide
from litestar.exceptions import HTTPException

from pyflue.ids import encode_base32
from pyflue.observers.logs import log
from pyflue_web.deps import WebDeps
from pyflue_web.health import live, ready
from pyflue_web.problems import failure_answer, http_answer
from pyflue_web.responses import respond
from pyflue_web.webhooks import Webhooks

_Request = Request[Any, Any, Any]


def create_app(deps: WebDeps) -> Litestar:
    """Build the application from its parts; opening and closing them is the caller's (see ``process.open_front``)."""

    def provide_deps() -> WebDeps:
        return deps

    def refused(_: _Request, error: HTTPException) -> Response[bytes]:
        headers = tuple((error.headers or {}).items())
        return respond(http_answer(error.status_code, error.detail, headers))

    def failed(_: _Request, error: Exception) -> Response[bytes]:
        reference = encode_base32(deps.ids.random_bits(80), 16)
        log("request.failed", level="error", exc_info=error, reference=reference)
        return respond(failure_answer(reference))

    return Litestar(
        route_handlers=[asgi("/webhooks", is_mount=True, copy_scope=True)(Webhooks(deps)), live, ready],
        dependencies={"deps": Provide(provide_deps, sync_to_thread=False)},
        exception_handlers={HTTPException: refused, Exception: failed},
        openapi_config=None,  # the routes are documented in docs/; nothing is loaded from a CDN
        logging_config=None,
    )
