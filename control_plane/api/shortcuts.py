"""AppWithShortcuts: a FastAPI whose hottest paths do not pass through its layers and its router.

Made by `main.create_app`. What a shortcut leads to is the very route that FastAPI documents, inside the same
edge; it saves seven layers a deploy passes twice, and their frames, which every idle agent's socket would hold.
"""

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.core.proxies import TrustedProxies


class AppWithShortcuts(FastAPI):
    """Looks up (scope type, path) before anything else; where proxies are named, after who it really is that asks."""

    trusted_proxies: TrustedProxies | None = None

    def add_shortcut(self, kind: str, path: str, app: ASGIApp) -> None:
        """Send `kind` ("http": a POST without a query; "websocket") of `path` straight to `app`."""
        self._shortcuts[kind, path] = app

    def __init__(self, **options: object) -> None:
        self._shortcuts: dict[tuple[str, str | None], ASGIApp] = {}
        super().__init__(**options)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if self.trusted_proxies is not None and scope["type"] != "lifespan":
            self.trusted_proxies.resolve(scope)
        shortcut = self._shortcuts.get((scope["type"], scope.get("path")))
        if shortcut is None or (scope["type"] == "http" and (scope["method"] != "POST" or scope["query_string"])):
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await shortcut(scope, receive, send)
