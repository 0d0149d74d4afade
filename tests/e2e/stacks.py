"""Compose files for the end-to-end tests, and the calls that each of them makes."""

import time
from typing import Any

import httpx
import yaml

from tests.support.docker import Events, docker

OPEN_GATE = "/tmp/open"
WAIT_SECONDS = 60
"""How long the API is asked to wait for a job that takes a second or two here."""


def web(image: str, page: str, *, port: str = "0", **more: Any) -> str:
    """One service that answers HTTP with `page` on a `port` of 127.0.0.1; "0" lets Docker choose it."""
    service = {
        "image": image,
        "environment": {"PAGE": page},
        "command": [
            "sh",
            "-c",
            'mkdir -p /tmp/www && echo "$$PAGE" > /tmp/www/index.html && exec httpd -f -h /tmp/www',
        ],
        "ports": [f"127.0.0.1:{port}:80"],
        "healthcheck": {"test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"], "interval": "200ms"},
        "init": True,
        **more,
    }
    return yaml.safe_dump({"services": {"web": service}})


def configured(image: str, name: str, page: str) -> str:
    """`web`, whose page is the text of a config of this name in the file."""
    stack = yaml.safe_load(web(image, "", command=["httpd", "-f", "-h", "/site"]))
    stack["services"]["web"]["configs"] = [{"source": name, "target": "/site/index.html"}]
    stack["configs"] = {name: {"content": page}}
    return yaml.safe_dump(stack)


def gated(image: str, page: str) -> str:
    """`web`, which `docker compose up` starts only after the test has called `open_gate`: a deploy held open."""
    stack = yaml.safe_load(web(image, page, depends_on={"gate": {"condition": "service_healthy"}}))
    stack["services"]["gate"] = {
        "image": image,
        "command": ["sleep", "600"],
        "init": True,
        "healthcheck": {"test": ["CMD", "test", "-e", OPEN_GATE], "interval": "200ms", "retries": 3000},
    }
    return yaml.safe_dump(stack)


async def open_gate(project: str) -> None:
    """Let a held deploy of `gated` go on."""
    await docker("exec", f"{project}-gate-1", "touch", OPEN_GATE)


async def deploy(api: httpx.AsyncClient, project: str, stack: str, *, wait: int = WAIT_SECONDS) -> dict[str, Any]:
    """POST /deploy and return the answer; with the default `wait` the job in it is over."""
    order = {"project_name": project, "compose_file": stack}
    return await _ok(api.post("/deploy", params={"wait": wait}, json=order, timeout=wait + 30))


async def stop(api: httpx.AsyncClient, project: str) -> dict[str, Any]:
    """Stop the project and return the answer for the job that is over."""
    return await _ok(api.post(f"/projects/{project}/stop", params={"wait": WAIT_SECONDS}, timeout=WAIT_SECONDS + 30))


async def status(api: httpx.AsyncClient, project: str) -> dict[str, Any]:
    """Ask the project's agent for its status."""
    return await _ok(api.get(f"/projects/{project}/status", params={"wait": WAIT_SECONDS}, timeout=WAIT_SECONDS + 30))


async def deployment(api: httpx.AsyncClient, deployment_id: object) -> dict[str, Any]:
    """Return one deployment as the API shows it."""
    return await _ok(api.get(f"/deployments/{deployment_id}"))


async def finished_job(api: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """Return the job once it is over."""
    job = await _ok(api.get(f"/jobs/{job_id}", params={"wait": WAIT_SECONDS}, timeout=WAIT_SECONDS + 30))
    assert job["status"] in {"completed", "failed"}, job
    return job


async def fetch_page(api: httpx.AsyncClient, project: str, events: Events, *, since: float = 0.0) -> str:
    """Return the page of the container that became healthy after `since`, from the port that STATUS tells."""
    await events.until("health_status: healthy", since=since)
    (row,) = [row for row in (await status(api, project))["data"] if row["Service"] == "web"]
    port = next(each["PublishedPort"] for each in row["Publishers"] if each["PublishedPort"])
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(f"http://127.0.0.1:{port}/")
    assert answer.status_code == 200
    return answer.text.strip()


async def _ok(call: Any) -> dict[str, Any]:
    answer: httpx.Response = await call
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def now() -> float:
    """The moment from which events count."""
    return time.time()
