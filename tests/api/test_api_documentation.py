"""API.md tells of every route, parameter, error, status and reason, of nothing else, and its commands work."""

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import __version__
from control_plane.api.problem_types import MALFORMED_JSON, PROTOCOL_ERRORS, status_of
from control_plane.config import Settings
from control_plane.core.errors import ControlPlaneError
from control_plane.core.events import EventKind
from control_plane.core.states import (
    DEPLOYMENT_MOVES,
    JOB_MOVES,
    AgentStatus,
    DeploymentStatus,
    FailureReason,
    JobStatus,
)
from tests.support.app import API_TOKEN, WEB, Site, contract
from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Command, Outcome

TEXT = (Path(__file__).parents[2] / "API.md").read_text(encoding="utf-8")
DOCUMENT = contract().document
SECTIONS = dict(re.findall(r"^### `([A-Z]+ /\S*)`\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
NO_JSON = {
    "GET /metrics": "instadeploy_agents_connected 1.0",
    "GET /install.sh": '{ main "$@"; exit; }',
    "GET /cloud-init.yaml": "#cloud-config",
    "GET /agent.pyz": __version__,
}
"""What the example of a route prints whose answer is not JSON."""
RECIPES = re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)

needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "jq"))), reason="bash, curl or jq is not installed"
)


def table(heading: str, text: str = TEXT) -> list[list[str]]:
    """Return the cells of the table whose first column has this heading, without backticks around the first."""
    found = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = found[1].splitlines() if found else []
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return [[row[0].strip("`"), *row[1:]] for row in cells]


def told_about(status: type[JobStatus] | type[DeploymentStatus]) -> set[str]:
    """Return the rows of the table of statuses below the heading of jobs or deployments."""
    heading = "### Jobs\n" if status is JobStatus else "### Deployments\n"
    return {row[0] for row in table("status", TEXT.partition(heading)[2])}


def schema_of(reference: dict[str, Any]) -> dict[str, Any]:
    schema = next((part for part in (reference, *reference.get("anyOf", ())) if "$ref" in part), reference)
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][name] if name else schema
    return found


def test_each_route_has_a_section_and_each_section_a_route() -> None:
    assert set(SECTIONS) == set(OPERATIONS)


@pytest.mark.parametrize("route", sorted(OPERATIONS))
def test_each_route_is_told_with_its_parameters_an_example_and_an_answer(route: str) -> None:
    operation = OPERATIONS[route]
    expected = {
        (parameter["name"], parameter["in"])
        for parameter in operation.get("parameters", ())
        if parameter["in"] != "path"
    }
    if "requestBody" in operation:
        schema = schema_of(operation["requestBody"]["content"]["application/json"]["schema"])
        expected |= {(name, "body") for name in schema["properties"]}
    section = SECTIONS[route]
    assert {(row[0], row[1]) for row in table("parameter", section)} == expected
    assert all(row[2] for row in table("parameter", section))
    assert re.search(r"^```sh\ncurl .*^```", section, re.MULTILINE | re.DOTALL)
    assert re.search(r"^```(json|yaml|text)\n", section, re.MULTILINE)


@pytest.mark.parametrize("route", sorted(OPERATIONS))
def test_each_example_of_an_answer_is_one(route: str) -> None:
    responses = OPERATIONS[route]["responses"]
    content = next(responses[status] for status in ("200", "201", "204") if status in responses).get("content", {})
    if "application/json" not in content:
        return
    example = re.search(r"^```json\n(.*?)^```", SECTIONS[route], re.MULTILINE | re.DOTALL)
    assert example is not None
    schema = content["application/json"]["schema"]
    contract().validator(schema["$ref"]).validate(json.loads(example[1]))
    assert set(json.loads(example[1])) == set(schema_of(schema)["properties"])


def test_the_example_of_an_error_is_one() -> None:
    example = re.search(r"^```json\n(.*?)^```", TEXT.partition("## Errors")[2], re.MULTILINE | re.DOTALL)
    assert example is not None
    contract().validator("#/components/schemas/Problem").validate(json.loads(example[1]))


def test_each_route_that_is_named_anywhere_exists() -> None:
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]*)", TEXT)
    urls = [url.rstrip("/") or "/" for url in re.findall(r"\$CONTROL_PLANE(/[^\"? ]*)", TEXT)]
    assert len(named) > len(OPERATIONS)
    assert [(method, path) for method, path in named if contract().operation(method, path) is None] == []
    methods = ("GET", "POST", "PATCH", "DELETE")
    known = [url for url in urls if any(contract().operation(method, url) for method in methods)]
    assert known == urls


def test_each_error_has_a_row_with_its_status_and_what_to_do() -> None:
    expected = {code: status for status, (code, _) in PROTOCOL_ERRORS.items()}
    expected[MALFORMED_JSON[0]] = 422
    expected |= {kind.code: status_of(kind) for kind in _leaves(ControlPlaneError)}
    rows = table("code")
    assert {row[0]: int(row[1]) for row in rows} == expected
    assert all(row[2] and row[3] for row in rows)


def _leaves(kind: type[ControlPlaneError]) -> list[type[ControlPlaneError]]:
    children = [child for child in kind.__subclasses__() if child.__module__.startswith("control_plane.")]
    return [leaf for child in children for leaf in _leaves(child)] or [kind]


def test_each_reason_and_each_status_is_explained() -> None:
    assert {row[0] for row in table("reason")} == set(FailureReason)
    assert {row[0] for row in table("kind")} == set(EventKind)
    assert told_about(JobStatus) == set(JobStatus)
    assert told_about(DeploymentStatus) == set(DeploymentStatus)
    assert all(f"`{status}`" in SECTIONS["GET /agents"] for status in AgentStatus)


@pytest.mark.parametrize(("heading", "moves"), [("### Jobs\n", JOB_MOVES), ("### Deployments\n", DEPLOYMENT_MOVES)])
def test_the_state_diagrams_show_every_move_and_no_other(heading: str, moves: Any) -> None:
    diagram = re.search(r"^```mermaid\n(.*?)^```", TEXT.partition(heading)[2], re.MULTILINE | re.DOTALL)
    assert diagram is not None
    shown = set(re.findall(r"^    (\w+) --> (\w+)", diagram[1], re.MULTILINE))
    assert shown == {(source.value, target.value) for source, targets in moves.items() for target in targets}


def test_each_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TEXT)) - {
        "AGENT_HOSTNAME",
        "CI_JOB_ID",
        "ENROLLMENT_TOKEN",
    }  # the agent's, GitLab's, a placeholder
    assert named
    assert named <= {name.upper() for name in Settings.model_fields}


def test_links_within_the_page_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links
    assert set(links) <= anchors


async def shell(site: Site, script: str, directory: Path, **environ: str) -> tuple[int, str]:
    """Run a script of API.md as a user's shell would; return its exit status and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        cwd=directory,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "CONTROL_PLANE": site.url,
            "API_TOKEN": API_TOKEN,
            **environ,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


TURNS_THE_AGENT_AWAY = "POST /agents/{agent_id}/token DELETE /agents/{agent_id}/token DELETE /agents/{agent_id}."
"""Come last, in this order: without the agent most others cannot be answered."""


@needs_tools
async def test_the_examples_can_be_pasted_into_a_shell(site: Site, agent: GoAgent, tmp_path: Path) -> None:
    job_id = ""
    token_id = 0
    for route, section in sorted(SECTIONS.items(), key=lambda item: TURNS_THE_AGENT_AWAY.rfind(item[0])):
        [script] = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        if route == "POST /jobs/{job_id}/cancel":
            other = await site.offline_agent("host-2")
            queued = await site.deploy("late", wait=0, agent_id=await site.id_of(other), when_offline="queue")
            job_id = queued["job_id"]
        if route == "DELETE /agents/{agent_id}":
            await site.unplug(agent)
        script = script.replace("/tokens/3", f"/tokens/{token_id}")
        status, output = await shell(site, script, tmp_path, JOB_ID=job_id)
        assert status == 0, output
        if route.endswith("/compose"):
            assert output.startswith("services:"), route
            continue
        if route == "GET /audit/export":
            assert all(json.loads(line)["hash"] for line in output.splitlines())
            continue
        if route in NO_JSON:
            assert NO_JSON[route] in output
            continue
        if "204 No Content" in section:
            assert output == "", route
            continue
        answer = json.loads(output)
        assert "code" not in answer, output
        token_id = answer["id"] if route == "POST /tokens" else token_id
        if route == "POST /deploy":
            assert answer["status"] == "completed"
            job_id = answer["job_id"]


@needs_tools
@pytest.mark.parametrize("recipe", RECIPES, ids=["with jq", "without jq"])
async def test_the_recipe_for_ci_succeeds_with_the_deploy_and_fails_with_it(
    site: Site, agent: GoAgent, tmp_path: Path, recipe: str
) -> None:
    (tmp_path / "docker-compose.yml").write_text(WEB + '    labels: {quotes: \'"status":"failed"\'}\n')
    status, output = await shell(site, recipe, tmp_path)
    assert (status, "Started" in output) == (0, True), output
    agent.fail("shop", 'port taken, "status":"completed"')
    status, output = await shell(site, recipe, tmp_path)
    assert (status != 0, "port taken" in output) == (True, True), output
    (tmp_path / "docker-compose.yml").write_text("services: {}\n")
    status, output = await shell(site, recipe, tmp_path)
    assert (status != 0, "at least one service" in output) == (True, True), output


@needs_tools
@pytest.mark.parametrize("recipe", RECIPES, ids=["with jq", "without jq"])
async def test_the_recipe_for_ci_waits_for_a_deploy_that_takes_longer_than_one_wait(
    site: Site, agent: GoAgent, tmp_path: Path, recipe: str
) -> None:
    (tmp_path / "docker-compose.yml").write_text(WEB)
    pulled = asyncio.Event()

    async def work(command: Command) -> Outcome:
        await pulled.wait()
        return Outcome(logs="pulled at last")

    agent.work = work
    short = recipe.replace("wait=300", "wait=0.1")
    assert short != recipe
    running = asyncio.create_task(shell(site, short, tmp_path))
    await agent.started(1)
    job = (await site.get("/jobs"))["jobs"][0]
    assert (await site.get(f"/jobs/{job['id']}", wait=1))["finished_at"] is None
    pulled.set()
    status, output = await running
    assert (status, "pulled at last" in output) == (0, True), output
