"""The demo's steps: what each does, how it knows that it is done, and how everything is taken away again.

Used by demo.py only. A step returns a note on what it did; it raises StepSkippedError with the reason when it
could not be done here, and StepFailedError when the outcome is not what its title says.
"""

import http.client
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples import engine, local_image
from examples.engine import DockerError
from examples.processes import ROOT, Answer, Child, free_port, request, start

COMPOSE_FILE = ROOT / "examples" / "hello" / "docker-compose.yml"
GREETING = "Hello from InstaDeploy"
"""Part of the page that hello/docker-compose.yml serves."""
READY_SECONDS = 60
"""How long a child may take to be ready, on a slow and busy machine; it takes a second or two."""
DEPLOY_SECONDS = 280
"""How long a deploy may take, an image pulled on a slow link included. The API waits 300 s at most."""


class StepFailedError(Exception):
    """A step did not do what it says; the text says what happened instead."""


class StepSkippedError(Exception):
    """A step was not done; the text says why."""


class Demo:
    """The steps in order, and what they share. `work` is an empty directory; the caller removes it."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.project = f"hello-{secrets.token_hex(3)}"
        self.image = f"instadeploy-example/{self.project}:local"
        self.made_image = False
        self.deployed = False
        self.no_docker = "not looked for yet"  # why there is none; empty where it can be used
        self.port = free_port()
        self.api_token, self.agent_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.children: list[Child] = []
        self.page_address = ""

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """Return each step's title and the function that does it and returns a note on what it did."""
        return [
            ("Look for Docker", self._look_for_docker),
            ("Make the example's image", self._make_image),
            ("Start the control plane", self._start_control_plane),
            ("Start an agent", self._start_agent),
            ("Deploy the project", self._deploy),
            ("Ask for its status", self._ask_status),
            ("Fetch its page", self._fetch_page),
            ("Stop it", self._stop_project),
            ("Check that nothing of it is left", self._check_gone),
            ("Stop the agent and the control plane", self._stop_children),
        ]

    def _look_for_docker(self) -> str:
        try:
            found = engine.versions()
        except DockerError as error:
            self.no_docker = str(error)
            checks = "it checks the Compose file and starts nothing"
            if engine.compose_version() is None:
                checks = "without Compose it cannot even check the Compose file, and says so"
            raise StepSkippedError(f"{error}\nSo the agent runs with --dry-run: {checks}.") from None
        self.no_docker = ""
        return found

    def _make_image(self) -> str:
        self._needs_docker()
        busybox = local_image.find_static_busybox()
        if busybox is None:
            return "not needed: Compose pulls busybox:stable (no static busybox on this machine)"
        local_image.import_image(busybox, self.image)
        self.made_image = True
        return f"from {busybox}, without a registry"

    def _start_control_plane(self) -> str:
        settings = {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "API_TOKEN": self.api_token,
            "AGENT_SECRET_TOKEN": self.agent_token,
            "DATABASE_URL": f"sqlite:///{self.work / 'control_plane.db'}",
        }
        child = start("control plane", [str(ROOT / "run.py")], settings, self.work)
        self.children.append(child)
        self._until(child, "ready", lambda: request(self.port, "GET", "/ready").status == 200)
        return f"http://127.0.0.1:{self.port}"

    def _start_agent(self) -> str:
        settings = {
            "SERVER_URL": f"ws://127.0.0.1:{self.port}/ws",
            "AGENT_SECRET_TOKEN": self.agent_token,
            "AGENT_HOSTNAME": "demo-agent",
            "PROJECTS_DIR": str(self.work / "projects"),
            "HELLO_PORT": "0",
        }
        if self.made_image:
            settings["HELLO_IMAGE"] = self.image
        child = start("agent", ["-m", "agent", *(["--dry-run"] if self.no_docker else [])], settings, self.work)
        self.children.append(child)
        self._until(child, "connected", lambda: bool(self._call("GET", "/agents?status=online").body["total"]))
        agent = self._call("GET", "/agents?status=online").body["agents"][0]
        return f"{agent['hostname']}, version {agent['version']}, {agent['architecture']}"

    def _deploy(self) -> str:
        order = {"project_name": self.project, "compose_file": COMPOSE_FILE.read_text()}
        answer = self._call("POST", f"/deploy?wait={DEPLOY_SECONDS}", order)
        if self.no_docker and answer.body["status"] == "failed" and engine.compose_version() is None:
            raise StepSkippedError(f"the agent could not, and says why\n{answer.body['error']}")
        job = self._completed(answer)
        deployment = self._call("GET", f"/deployments/{job['deployment_id']}").body
        if deployment["status"] != "running":
            raise StepFailedError(f"the job is completed, but the deployment is {deployment['status']}")
        self.deployed = True
        done = "checked only, nothing started" if self.no_docker else "running"
        return f"job {job['job_id']}: {done}\n{_lines(job['logs'])}"

    def _ask_status(self) -> str:
        self._needs_deployment()
        job = self._completed(self._call("GET", f"/projects/{self.project}/status?wait=60"))
        if self.no_docker:
            return f"the dry-run agent answers\n{_lines(job['logs'])}"
        running = [row for row in job["data"] or [] if row["State"] == "running"]
        if not running:
            raise StepFailedError(f"no container is running\n{_lines(job['logs'])}")
        published = next((each for each in running[0]["Publishers"] if each["PublishedPort"]), None)
        if published is None:
            raise StepFailedError(f"{running[0]['Name']} publishes no port")
        self.page_address = f"127.0.0.1:{published['PublishedPort']}"
        return f"{running[0]['Name']} is running on port {published['PublishedPort']}"

    def _fetch_page(self) -> str:
        self._needs_docker()
        if not engine.host_is_local():
            raise StepSkippedError("the Docker engine is on another machine, which publishes on its own loopback")
        host, port = self.page_address.split(":")
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                answer = request(int(port), "GET", "/")
                break
            except (OSError, http.client.HTTPException) as error:
                # A container runs a moment before the program in it listens.
                if time.monotonic() > deadline:
                    raise StepFailedError(f"http://{host}:{port}/ does not answer: {error}") from None
                time.sleep(0.1)
        if answer.status != 200 or GREETING not in str(answer.body):
            raise StepFailedError(f"http://{host}:{port}/ answers {answer.status}: {answer.body}")
        return f"http://{host}:{port}/ answers: {str(answer.body).strip()}"

    def _stop_project(self) -> str:
        self._needs_deployment()
        job = self._completed(self._call("POST", f"/projects/{self.project}/stop?wait=120"))
        done = "the dry-run agent has nothing to stop" if self.no_docker else "stopped"
        return f"job {job['job_id']}: {done}"

    def _check_gone(self) -> str:
        self._needs_docker()
        left = [*engine.containers(self.project), *engine.networks(self.project)]
        if left:
            raise StepFailedError(f"still there: {', '.join(left)}")
        return "no container and no network"

    def _stop_children(self) -> str:
        for child in reversed(self.children):
            status = child.stop(seconds=40)
            if status != 0:
                raise StepFailedError(f"the {child.name} ended with exit status {status}")
        return "both ended by themselves, exit status 0"

    def clean_up(self) -> None:
        """Remove whatever is left, after success, failure or Ctrl-C alike. Raises DockerError."""
        for child in reversed(self.children):
            child.stop(seconds=5)
        if not self.no_docker:
            engine.remove_project(self.project)
        if self.made_image and engine.has_image(self.image):
            engine.docker("image", "rm", self.image)

    def _needs_docker(self) -> None:
        if self.no_docker:
            raise StepSkippedError("not done: no Docker on this machine")

    def _needs_deployment(self) -> None:
        if not self.deployed:
            raise StepSkippedError("not done: nothing was deployed")

    def _call(self, method: str, path: str, body: object = None) -> Answer:
        answer = request(self.port, method, path, token=self.api_token, body=body, timeout_seconds=310)
        if answer.status >= 400:
            raise StepFailedError(answer.problem)
        return answer

    def _completed(self, answer: Answer) -> dict[str, Any]:
        job: dict[str, Any] = answer.body
        if job["status"] != "completed":
            raise StepFailedError(f"the job is {job['status']}: {job.get('error') or job.get('message') or ''}")
        return job

    def _until(self, child: Child, state: str, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while child.process.poll() is None and time.monotonic() < deadline:
            try:
                if reached():
                    return
            except (OSError, http.client.HTTPException):
                pass  # not listening yet
            time.sleep(0.1)
        ended = child.process.poll()
        why = f"it ended with status {ended}" if ended is not None else f"not within {READY_SECONDS} s"
        raise StepFailedError(f"the {child.name} did not get {state}: {why}")


def _lines(text: str) -> str:
    """Compose indents its lines, each in its own way."""
    return "\n".join(line.strip() for line in text.splitlines())
