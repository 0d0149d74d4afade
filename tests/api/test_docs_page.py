"""The docs page works with nothing but this server, and lets no foreign or injected script run."""

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI

from control_plane.api.auth import protected_router
from control_plane.api.docs import STATIC_DIRECTORY, install_docs
from control_plane.api.edge import install_edge
from control_plane.core.tokens import TokenChecker
from tests.support.browser import NEEDS_CHROMIUM, visiting
from tests.support.http import client_of, serving


class Page(HTMLParser):
    """Collects what the page loads, and what its policy would stop."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._open_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [value for name, value in attrs if name in {"src", "href"} and value]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag == "style" else []
        self._open_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._open_script and data.strip():
            self.inline.append(data)


def make_app() -> FastAPI:
    app = FastAPI(title="Control Plane", docs_url=None, redoc_url=None)
    app.state.api_tokens = TokenChecker.of_plain("x")
    router = protected_router()

    @router.get("/agents", summary="List the agents that were ever connected")
    async def agents() -> None: ...

    app.include_router(router)
    install_docs(app)
    install_edge(app)
    return app


async def test_everything_the_page_loads_comes_from_here_without_a_token_and_with_its_type() -> None:
    kinds = {".js": "javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}
    async with client_of(make_app()) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        loads = Page(page.text).loads
        assert {Path(link.partition("?")[0]).suffix for link in loads} == set(kinds)
        for link in loads:
            response = await client.get(urljoin("/docs", link))
            assert response.status_code == 200, link
            kind = kinds[Path(link.partition("?")[0]).suffix]
            assert kind in response.headers["content-type"]
            assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.promise("browsers")
async def test_the_page_has_nothing_that_its_policy_would_stop() -> None:
    async with client_of(make_app()) as client:
        page = await client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert page.headers.get_list("content-security-policy") == [policy]
    assert page.headers["x-frame-options"] == "DENY"
    assert Page(page.text).inline == []


def test_all_links_are_relative_so_that_a_path_prefix_works() -> None:
    page = (STATIC_DIRECTORY / "docs.html").read_text()
    script = (STATIC_DIRECTORY / "docs.js").read_text()
    assert not [link for link in Page(page).loads if link.startswith(("/", "http"))]
    assert 'url: "openapi.json"' in script


def test_the_version_in_the_links_is_that_of_the_files() -> None:
    page = (STATIC_DIRECTORY / "docs.html").read_text()
    readme = (STATIC_DIRECTORY / "swagger-ui" / "README.md").read_text()
    linked = set(re.findall(r"\?v=([\d.]+)", page))
    assert linked == set(re.findall(r"^# Swagger UI ([\d.]+)$", readme, re.MULTILINE))
    bundle = (STATIC_DIRECTORY / "swagger-ui" / "swagger-ui-bundle.js").read_text()
    assert len(linked) == 1
    assert linked.pop() in bundle


async def test_static_files_are_kept_by_browsers_and_asked_for_again_by_etag() -> None:
    async with client_of(make_app()) as client:
        first = await client.get("/static/swagger-ui/swagger-ui.css")
        again = await client.get("/static/swagger-ui/swagger-ui.css", headers={"If-None-Match": first.headers["etag"]})
    assert first.headers.get_list("cache-control") == ["public, max-age=3600"]
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "public, max-age=3600"


@pytest.mark.parametrize(
    "path", ["/redoc", "/static/", "/static/nothing.js", "/static/../docs.py", "/static/%2e%2e/docs.py"]
)
async def test_what_is_not_there_is_a_problem(path: str) -> None:
    async with client_of(make_app()) as client:
        response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["code"] == "route_not_found"


@pytest.mark.parametrize("app", [FastAPI(), FastAPI(docs_url=None)])
def test_fastapis_own_pages_are_refused(app: FastAPI) -> None:
    with pytest.raises(ValueError, match="docs_url=None, redoc_url=None"):
        install_docs(app)


@pytest.mark.promise("browsers")
@NEEDS_CHROMIUM
async def test_a_browser_shows_the_routes_and_stops_nothing_of_the_page() -> None:
    async with serving(make_app()) as (host, port):
        url = f"http://{host}:{port}/docs"
        async with visiting(url, "--virtual-time-budget=5000", "--dump-dom") as browser:
            shown, logged = await asyncio.wait_for(browser.communicate(), 90)
    assert b"List the agents that were ever connected" in shown
    assert b"Authorize" in shown
    assert b"Content Security Policy" not in logged, logged.decode()
