"""The installer run for real: on a clean host, with the real agent, against a control plane with rules for tokens.

`systemctl` and `docker` are stand-ins; the service that the former starts is the agent as the unit says.
"""

from control_plane.api.agent_file import agent_file
from tests.support.clean_host import CleanHost, Ended
from tests.support.control_plane_stand_in import ControlPlaneStandIn
from tests.support.installing import AGENT, ENROLLMENT, ENV, NEWER, STARTED, STATE, enrollments, script
from tests.support.server import ServerProcess


async def install(host: CleanHost, plane: ControlPlaneStandIn, *arguments: str) -> Ended:
    """Run the installer to its good end, and see the service connect with the kept token and work."""
    ended = await host.run(script(plane), *arguments)
    assert ended.status == 0, ended.output
    await plane.link()  # of --enroll-only
    link = await plane.link()
    await link.send("h1", "HEALTH_CHECK")
    assert (await link.final("h1"))["status"] == "COMPLETED"
    [own] = enrollments(plane).own.values()
    assert link.headers["Authorization"] == f"Bearer {own}"
    return ended


def token_of(host: CleanHost) -> str:
    [path] = (host.root / STATE / "projects/.instadeploy/tokens").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_text().strip()


async def test_one_command_makes_a_clean_host_an_enrolled_agent_that_runs_as_a_service(
    host: CleanHost, plane: ControlPlaneStandIn
) -> None:
    ended = await install(host, plane, "--enroll", ENROLLMENT, "--hostname", "web-1")
    assert "The agent is installed." in ended.output
    assert "instadeploy-agent.service - InstaDeploy agent" in ended.output
    assert host.calls() == STARTED
    assert enrollments(plane).own == {"web-1": token_of(host)}
    assert (host.root / AGENT).read_bytes() == agent_file().content
    assert (host.root / ENV).stat().st_mode & 0o777 == 0o600
    assert (host.root / ENV).read_text().splitlines() == [
        f"SERVER_URL={plane.url}",
        "PROJECTS_DIR=/var/lib/instadeploy-agent/projects",
        "AGENT_HOSTNAME=web-1",
    ]
    tree = host.tree()
    assert not any(ENROLLMENT.encode() in content for _, content in tree.values())
    assert [name for name in tree if name.startswith("tmp/")] == []
    assert ENROLLMENT not in ended.output + host.log()
    assert token_of(host) not in ended.output + host.log()


async def test_a_second_run_updates_the_agent_and_keeps_its_token_its_name_and_added_settings(
    host: CleanHost, plane: ControlPlaneStandIn
) -> None:
    await install(host, plane, "--enroll", ENROLLMENT, "--hostname", "web-1")
    token = token_of(host)
    (host.root / AGENT).write_bytes(b"an older one")
    with (host.root / ENV).open("a") as env:
        env.write("SSL_CERT_FILE=/etc/own-ca.pem\n")
    ended = await install(host, plane)
    assert "Already enrolled as web-1" in ended.output
    assert host.calls() == [*STARTED, "stop instadeploy-agent.service", *STARTED]
    assert (token_of(host), enrollments(plane).own) == (token, {"web-1": token})
    assert (host.root / AGENT).read_bytes() == agent_file().content
    assert (host.root / ENV).read_text().splitlines() == [
        f"SERVER_URL={plane.url}",
        "PROJECTS_DIR=/var/lib/instadeploy-agent/projects",
        "AGENT_HOSTNAME=web-1",
        "SSL_CERT_FILE=/etc/own-ca.pem",
    ]


async def test_a_revoked_host_is_enrolled_again_by_a_run_with_a_new_token(
    host: CleanHost, plane: ControlPlaneStandIn
) -> None:
    await install(host, plane, "--enroll", ENROLLMENT, "--hostname", "web-1")
    revoked = enrollments(plane).own.pop("web-1")
    enrollments(plane).good = {NEWER}
    await install(host, plane, "--enroll", NEWER)
    assert token_of(host) != revoked


async def test_an_update_that_is_refused_leaves_the_old_agent_running(
    host: CleanHost, plane: ControlPlaneStandIn
) -> None:
    await install(host, plane, "--enroll", ENROLLMENT, "--hostname", "web-1")
    token = enrollments(plane).own.pop("web-1")
    before = host.tree()
    ended = await host.run(script(plane))
    assert ended.status == 1
    assert host.calls()[len(STARTED) :] == ["stop instadeploy-agent.service", "start instadeploy-agent.service"]
    assert host.tree() == before
    enrollments(plane).own["web-1"] = token
    link = await plane.link()
    assert link.headers["Authorization"] == f"Bearer {token}"


async def test_uninstalling_removes_all_but_the_projects_and_says_so(
    host: CleanHost, plane: ControlPlaneStandIn
) -> None:
    before = host.tree()
    await install(host, plane, "--enroll", ENROLLMENT)
    project = host.root / STATE / "projects" / "web"
    project.mkdir()
    (project / "docker-compose.yml").write_text("services: {}\n")
    dry = await host.run(script(plane), "--uninstall", "--dry-run")
    assert (dry.status, project.is_dir(), (host.root / AGENT).exists()) == (0, True, True)
    ended = await host.run(script(plane), "--uninstall")
    assert ended.status == 0
    assert "Kept: the project directories in /var/lib/instadeploy-agent/projects" in ended.output
    assert host.calls()[len(STARTED) :] == ["disable --now --quiet instadeploy-agent.service", "daemon-reload"]
    left = set(host.tree()) - set(before)
    assert left == {STATE, f"{STATE}/projects", f"{STATE}/projects/web", f"{STATE}/projects/web/docker-compose.yml"}
    (project / "docker-compose.yml").unlink()
    project.rmdir()
    assert (await host.run(script(plane), "--uninstall")).status == 0
    assert host.tree() == before


async def test_a_token_in_the_environment_does_as_well(host: CleanHost, plane: ControlPlaneStandIn) -> None:
    ended = await host.run(script(plane), AGENT_ENROLLMENT_TOKEN=ENROLLMENT)
    assert (ended.status, enrollments(plane).asked[0]) == (0, ENROLLMENT), ended.output


async def test_an_agent_that_does_not_run_is_not_called_installed(host: CleanHost, plane: ControlPlaneStandIn) -> None:
    host.put("systemctl", '#!/bin/sh\n[ "$1" != is-active ]\n')
    ended = await host.run(script(plane), "--enroll", ENROLLMENT)
    assert ended.status == 1
    assert "journalctl -u instadeploy-agent.service says why" in ended.output
    assert "is installed" not in ended.output


async def test_with_the_real_control_plane_one_command_makes_a_host_an_agent_whose_hostname_is_bound(
    host: CleanHost,
) -> None:
    async with ServerProcess() as server, server.client() as client:
        enrollment = (await client.post("/agents/enroll", json={"labels": {"env": "prod"}})).json()["token"]
        served = (await client.get("/install.sh")).text
        ended = await host.run(served, "--enroll", enrollment, "--hostname", "web-1")
        assert ended.status == 0, ended.output
        while (agents := (await client.get("/agents")).json()["agents"])[0]["status"] != "online":
            pass  # the one that enrolled has left, the service comes
        assert [(agent["hostname"], agent["labels"], agent["bound"]) for agent in agents] == [
            ("web-1", {"env": "prod"}, True)
        ]
        answer = (await client.post("/agents/1/health-check?wait=30")).json()
        assert (answer["status"], enrollment in host.log()) == ("completed", False), answer


async def test_the_real_control_plane_serves_all_that_the_installer_fetches_and_refuses_a_stranger(
    host: CleanHost,
) -> None:
    before = host.tree()
    async with ServerProcess() as server, server.client() as client:
        served = (await client.get("/install.sh")).text
        dry = await host.run(served, "--dry-run", "--enroll", ENROLLMENT)
        assert dry.status == 0, dry.output
        assert f"from {server.url}/agent.pyz" in dry.output
        refused = await host.run(served, "--enroll", ENROLLMENT)
    assert refused.status == 1
    assert "refused the enrolment token (HTTP 401" in refused.output
    assert (host.tree(), host.calls()) == (before, [])
