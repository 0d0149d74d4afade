"""The docs page: Swagger UI at /docs, its files at /static, all served by ourselves and without a token.

`main.create_app` calls `install_docs` once. Invariant: the page loads nothing from another host and runs no
inline script, so it works on a closed network and its policy stops any script that is injected.
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

STATIC_DIRECTORY = Path(__file__).parent / "static"

PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI's own pictures are data: URLs in its style sheet."""

_STATIC_CACHE = "public, max-age=3600"
"""An hour; after it the ETag makes a second load free. A new Swagger UI has a new `?v=` and is seen at once."""


class _CachedStaticFiles(StaticFiles):
    """Static files that browsers may keep."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, or raise HTTPException 404 or 405."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _STATIC_CACHE
        return response


def install_docs(app: FastAPI) -> None:
    """Serve /docs and /static. `app` must have been made with `docs_url=None, redoc_url=None`.

    Raises ValueError otherwise: FastAPI's own pages come first and load their script from another host.
    """
    if app.docs_url or app.redoc_url:
        raise ValueError("make the app with docs_url=None, redoc_url=None: /docs is served by install_docs")
    page = (STATIC_DIRECTORY / "docs.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}

    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    app.add_api_route("/docs", docs, include_in_schema=False)
    app.mount("/static", _CachedStaticFiles(directory=STATIC_DIRECTORY), name="static")
