"""What hosts fetch to become agents: the installer, a cloud-config that runs it, and the agent itself.

Public, for none of it holds a secret. Invariant: of a request nothing gets into a script but a scheme and a host that
mean nothing to a shell, to YAML and in a URL's path; from any other request the script learns no address.
"""

import asyncio
import functools
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from control_plane.api.agent_file import AgentFile, agent_file

TEMPLATES = Path(__file__).parent / "install"
NO_ADDRESS = "https://CONTROL_PLANE"
"""In the cloud-config, for people to put their own in its place."""

_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

router = APIRouter(tags=["Service"])


def base_url(request: Request) -> str:
    """Return `http(s)://HOST[:PORT]` as the caller reached this server; empty unless every letter of it is harmless.

    A proxy that ends TLS says so with `X-Forwarded-Proto: https`, which can only make the script ask for more safety.
    """
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return ""
    secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
    return f"{'https' if secure else 'http'}://{hosts[0]}"


def installer(server: str, agent: AgentFile) -> str:
    """Return the script for a server's base URL, which may be empty."""
    script = _template("install.sh").replace("@UNIT@\n", _template("instadeploy-agent.service"))
    return script.replace("@SERVER@", server).replace("@AGENT_SHA256@", agent.sha256)


@functools.cache
def _template(name: str) -> str:
    return (TEMPLATES / name).read_text("utf-8")


def _as_file(media_type: str, example: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": {"type": "string"}, "example": example}}}}


@router.get(
    "/install.sh",
    operation_id="get_installer",
    summary="Get the agent's installer",
    response_class=Response,
    responses=_as_file("text/x-shellscript", "#!/bin/sh\n"),
)
async def get_installer(request: Request) -> Response:
    """Return a shell script that installs the Python agent as a systemd service, with this server's address in it."""
    script = installer(base_url(request), await asyncio.to_thread(agent_file))
    return Response(script, media_type="text/x-shellscript; charset=utf-8")


@router.get(
    "/cloud-init.yaml",
    operation_id="get_cloud_config",
    summary="Get a cloud-config that installs the agent",
    response_class=Response,
    responses=_as_file("text/cloud-config", "#cloud-config\n"),
)
async def get_cloud_config(request: Request) -> Response:
    """Return user data for cloud-init that runs the installer at a host's first start; put an enrolment token in it."""
    config = _template("cloud-init.yaml").replace("@SERVER@", base_url(request) or NO_ADDRESS)
    return Response(config, media_type="text/cloud-config; charset=utf-8")


@router.get(
    "/agent.pyz",
    operation_id="get_agent_file",
    summary="Get the agent as one file",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "It is the one that `If-None-Match` names."},
    },
)
async def get_agent_file(request: Request) -> Response:
    """Return the Python agent of this version, which runs on any Python from 3.11 on without further packages."""
    agent = await asyncio.to_thread(agent_file)
    headers = {"ETag": f'"{agent.sha256}"', "Cache-Control": "no-cache"}
    if headers["ETag"] in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(agent.content, media_type="application/zip", headers=headers)
