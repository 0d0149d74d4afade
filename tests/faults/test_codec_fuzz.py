"""No value wedges a job: whatever an agent says for one and whatever a Compose file holds ends in one clear way.

Hypothesis says odd values to the real control plane; a coverage-guided fuzzer goes for the parsers themselves.
FAULT_SEED repeats a run.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from control_plane.api.schemas import JobDetail
from control_plane.core import logs, protocol, text, wire
from control_plane.core.compose import read_compose, reader, scalars, variables
from control_plane.core.errors import InvalidComposeFileError, TooLargeError
from control_plane.core.protocol import BadMessageError, decode_response
from control_plane.core.states import TERMINAL_JOB_STATUSES
from control_plane.core.wire import decode_command, encode_response
from control_plane.operations import deploying, results
from control_plane.operations.context import ControlPlane
from control_plane.store import jobs
from control_plane.store.models import Job
from tests.support.access import REACH, ROOT
from tests.support.app import make_app
from tests.support.faults import chance
from tests.support.fuzzer import Findings, Fuzzer
from tests.support.memory_socket import MemorySocket, identity

ODD = [
    '"\\u0000"',
    '"\x00"',
    '"\\ud800"',
    '"\\udfff\\ud800 and \\ud83d"',
    '"\\u001b[31m\\u009b\\u2028"',
    '"\\x"',
    "NaN",
    "-Infinity",
    "1e999",
    "-0.0",
    "9" * 400,
    "-" + "9" * 5000,
    "[" * 300 + "]" * 300,
    "[" * 100_000,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 5_000 + "1" + "}" * 5_000,
    '{"a":1,"a":2,"":{"\\u0000":"\\ud800"}}',
    "null",
    "true",
    '""',
    "{}",
]
VALUES = (
    st.sampled_from(ODD)
    | st.text(max_size=20).map(json.dumps)
    | st.lists(st.sampled_from(ODD[:10])).map(lambda items: f"[{','.join(items)}]")
)
STATUSES = st.sampled_from(['"COMPLETED"', '"FAILED"', '"IN_PROGRESS"', '"completed"', "1", "null"])
NAMES = st.sampled_from(["logs", "error", "data", "data", "whole_log", "status", "extra", "\\u0000"])


class Desk:
    """A control plane and the one agent that it deploys to."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.socket = MemorySocket()
        self.deploys = 0

    async def connect(self) -> None:
        async def accept() -> None: ...

        self.session, _ = await self.plane.manager.connect(identity(), self.socket, accept)
        self.plane.dispatcher.attach(self.session, has_work=False)

    async def end_with(self, members: list[tuple[str, str]], status: str) -> Job:
        """Deploy, have the agent say this of it, then the plain end; return the job as it is stored."""
        self.deploys += 1
        source = b"services: {web: {image: nginx}}\n"
        accepted = await deploying.deploy(self.plane, ROOT, f"p{self.deploys}", source, agent_id=self.session.agent_id)
        assert self.socket.commands[-1]["id"] == accepted.job_id
        spoken = "".join(f', "{name}": {value}' for name, value in members)
        self.hear(f'{{"job_id": "{accepted.job_id}", "status": {status}{spoken}}}')
        self.hear(f'{{"job_id": "{accepted.job_id}", "status": "COMPLETED", "logs": "the plain end"}}')
        await self.plane.inboxes.drain()
        return await self.plane.store.read(jobs.get_job, REACH, accepted.job_id)

    def hear(self, said: str) -> None:
        try:
            results.receive(self.plane, self.session, decode_response(said))
        except BadMessageError as error:
            assert_clear(str(error))


def assert_clear(sentence: str) -> None:
    """Fail unless this can be logged and shown as one line."""
    assert sentence.strip()
    assert "\n" not in sentence
    sentence.encode()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[tuple[asyncio.Runner, Desk]]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> Desk:
            app = make_app(tmp_path / "control_plane.db", shutdown_grace_seconds=0)
            await stack.enter_async_context(app.router.lifespan_context(app))
            desk = Desk(app.state.control_plane)
            await desk.connect()
            return desk

        yield runner, runner.run(opened())
        runner.run(stack.aclose())


def say_odd_things(runner: asyncio.Runner, desk: Desk, number: int) -> None:
    """Raise AssertionError for the first answer that leaves a job open, or a row that cannot be shown."""

    @seed(number)
    @settings(
        max_examples=150,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(st.lists(st.tuples(NAMES, VALUES), max_size=4), STATUSES)
    def say(members: list[tuple[str, str]], status: str) -> None:
        job = runner.run(desk.end_with(members, status))
        assert job.status in TERMINAL_JOB_STATUSES
        shown = JobDetail.model_validate(job)
        try:
            json.loads(shown.model_dump_json())
        except ValueError as error:
            raise AssertionError(f"job {job.id} cannot be shown: {error}") from error

    say()


@pytest.mark.promise("17")
def test_whatever_an_agent_says_its_job_ends_and_can_be_shown(desk: tuple[asyncio.Runner, Desk]) -> None:
    say_odd_things(*desk, chance().getrandbits(32))


@pytest.mark.control("17")
def test_odd_values_that_are_kept_as_they_come_make_a_job_that_cannot_be_shown(
    desk: tuple[asyncio.Runner, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_plain", lambda value: value)
    monkeypatch.setattr(results, "_plain", lambda data: data)
    with pytest.raises(AssertionError):
        say_odd_things(*desk, 17)


WORDS = [word.encode("utf-8", "surrogatepass") for word in ODD if len(word) < 500]
ANSWERS = [
    b'{"job_id": "j1", "status": "COMPLETED", "logs": "done", "data": {"a": [1, 2.5, null]}}',
    b'{"job_id": "j1", "status": "FAILED", "logs": "", "error": "no \\ud800 space", "whole_log": true}',
    b'{"job_id":"unknown","status":"FAILED","logs":"\\u0000","data":NaN}',
]
COMMANDS = [
    b'{"id": "j1", "type": "DEPLOY_COMPOSE", "payload": {"project_name": "web", "compose_file_base64": "eA=="}}'
]
FILES = [
    b"services:\n  web:\n    image: nginx:${TAG:-1}\n    ports: ['80:80']\n    environment: {A: 1, B: '${C}'}\n",
    b"x-a: &a {image: nginx}\nservices:\n  web: *a\n  db:\n    <<: *a\n    deploy: {replicas: 2}\nvolumes: {data: }\n",
    b"name: web\nservices:\n  web:\n    build: .\n    volumes: [data:/x, ./a:/b]\n    depends_on: [db]\n",
]
YAML_WORDS = [
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!binary ",
    b"? ",
    b"|2-\n",
    b"%YAML 1.1\n---\n",
    b"\t",
    b"${A:?b}",
    b"$$",
    b"${",
    b"'",
]
YAML_WORDS += [
    b'"\\ud800"',
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"[" * 100,
    b"- ",
    b": ",
    b"\n  ",
    b"0x7f",
    b".nan",
    b"1e400",
    *FILES,
]


def check_answer(data: bytes) -> None:
    """Raise unless an answer is refused in one clear sentence, or what is kept of it fits any database."""
    said = data.decode("utf-8", "replace")
    try:
        response = decode_response(said)
    except BadMessageError as error:
        assert_clear(str(error))
        return
    answer = results._answer(1, response)
    for kept in (answer.logs, answer.error or "", json.dumps(answer.data, allow_nan=False, ensure_ascii=False)):
        assert not any(letter < " " and letter not in "\n\t" for letter in kept)
        kept.encode()
    assert decode_response(encode_response(**dict(response))) == response


def check_command(data: bytes) -> None:
    try:
        decode_command(data.decode("utf-8", "replace"))
    except BadMessageError as error:
        assert_clear(str(error))


def check_file(data: bytes) -> None:
    """Raise unless a Compose file is taken, or refused with problems that can be shown."""
    began = time.monotonic()
    try:
        read_compose(data, "web")
    except (InvalidComposeFileError, TooLargeError) as error:
        assert_clear(error.detail)
        for problem in error.fields if isinstance(error, InvalidComposeFileError) else ():
            assert_clear(f"{problem.field}: {problem.reason}")
    assert time.monotonic() - began < 10


TARGETS: dict[str, Any] = {
    "answers": (check_answer, [protocol, text, logs, results], ANSWERS, WORDS),
    "commands": (check_command, [wire], COMMANDS, WORDS),
    "files": (check_file, [reader, scalars, variables], FILES, YAML_WORDS),
}


def fuzz(target: str, seconds: float, random_choices: random.Random) -> Findings:
    check, watched, seeds, words = TARGETS[target]
    return Fuzzer(check, watched, seeds, words, random_choices).run(seconds)


@pytest.mark.promise("17")
@pytest.mark.parametrize("target", TARGETS)
def test_no_input_that_the_fuzzer_finds_is_anything_but_taken_or_clearly_refused(target: str) -> None:
    found = fuzz(target, 5, chance())
    assert found.inputs > 200
    assert found.kept > 0, "no input has reached a new line: what it watches is not what it feeds"


@pytest.mark.control("17")
def test_the_fuzzer_finds_an_answer_whose_odd_values_were_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_plain", lambda value: value)
    with pytest.raises((AssertionError, ValueError)):
        fuzz("answers", 30, random.Random(17))
