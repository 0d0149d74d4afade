"""The real agent process enrols: its own token is on the disk before it works, and refusals say what to do.

The control plane is the stand-in with a control plane's rules for tokens. What the agent logs is searched for every
token that it was given or shown.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.agent_harness import AgentProcess, Stage
from tests.support.control_plane_stand_in import Enrollments

ENROLLMENT = "ide_CanaryOfTheEnrolmentToken"
NEWER = "ide_CanaryOfANewerEnrolmentToken"


@pytest.fixture
async def enrollments(stage: Stage) -> AsyncIterator[Enrollments]:
    """A control plane that knows ENROLLMENT; whatever the test does, no token may get into the agent's log."""
    stage.control_plane.enrollments = enrollments = Enrollments(ENROLLMENT)
    stage.agent.extra_environ = {"AGENT_SECRET_TOKEN": ""}
    yield enrollments
    log = stage.agent.log()
    assert "Traceback" not in log
    for token in {ENROLLMENT, NEWER, *enrollments.asked, *enrollments.own.values()}:
        assert token not in log


async def works(stage: Stage) -> None:
    """Take the agent's next connection, and see it do something there."""
    link = await stage.control_plane.link()
    await link.send("h1", "HEALTH_CHECK")
    assert (await link.final("h1"))["status"] == "COMPLETED"


def last_line(agent: AgentProcess) -> str:
    return agent.log().splitlines()[-1]


async def test_one_command_enrols_keeps_the_token_and_goes_on_as_the_agent(
    stage: Stage, enrollments: Enrollments
) -> None:
    await stage.agent.start("--enroll", ENROLLMENT, "--log-level", "debug")
    await works(stage)
    [kept] = stage.agent.token_files()
    assert kept.read_text() == enrollments.own["host-a"] + "\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    await stage.control_plane.close()
    await stage.control_plane.open()
    await works(stage)
    await stage.agent.stop()
    await stage.agent.start()
    await works(stage)
    assert enrollments.asked == [ENROLLMENT, enrollments.own["host-a"], enrollments.own["host-a"]]


async def test_the_token_is_on_the_disk_when_the_first_command_is_taken(stage: Stage, enrollments: Enrollments) -> None:
    looked = stage.docker.home / "looked"
    stage.docker.on(
        "up", f'set -- {stage.agent.projects}/.instadeploy/tokens/*; read kept < "$1"; echo $kept > {looked}'
    )
    stage.agent.extra_environ |= {"AGENT_ENROLLMENT_TOKEN": ENROLLMENT}
    await stage.agent.start()
    link = await stage.control_plane.link()
    await link.deploy("j1")
    assert (await link.final("j1"))["status"] == "COMPLETED"
    assert looked.read_text() == enrollments.own["host-a"] + "\n"


async def test_a_token_that_cannot_be_kept_ends_the_agent_before_any_command_and_is_given_again(
    stage: Stage, enrollments: Enrollments
) -> None:
    in_the_way = stage.agent.projects / ".instadeploy" / "tokens"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.symlink_to("nowhere")
    await stage.agent.start("--enroll", ENROLLMENT)
    link = await stage.control_plane.link()
    assert await stage.agent.wait() == 1
    await asyncio.wait_for(link.ended.wait(), 30)
    assert link.frames == []
    assert "is lost: put that right and start the agent again" in last_line(stage.agent)
    in_the_way.unlink()
    await stage.agent.start("--enroll", ENROLLMENT)
    await works(stage)


async def test_a_kept_token_is_used_and_enroll_is_said_to_be_ignored(stage: Stage, enrollments: Enrollments) -> None:
    await stage.agent.start("--enroll", ENROLLMENT)
    await works(stage)
    await stage.agent.stop()
    await stage.agent.start("--enroll", NEWER)
    await works(stage)
    assert "--enroll is not used unless it is refused" in stage.agent.log()
    assert NEWER not in enrollments.asked


async def test_a_revoked_agent_enrols_again_with_a_new_enrolment_token(stage: Stage, enrollments: Enrollments) -> None:
    await stage.agent.start("--enroll", ENROLLMENT)
    await works(stage)
    await stage.agent.stop()
    revoked = enrollments.own.pop("host-a")
    enrollments.good = {NEWER}
    await stage.agent.start("--enroll", NEWER)
    await works(stage)
    assert enrollments.asked == [ENROLLMENT, revoked, NEWER]
    [kept] = stage.agent.token_files()
    assert kept.read_text() == enrollments.own["host-a"] + "\n"


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            False,
            "refused the enrolment token (HTTP 401: This token is unknown, has expired or was revoked): make a new",
        ),
        (True, "(HTTP 403: The hostname host-a has a token of its own already): free that hostname"),
    ],
)
async def test_a_refused_enrolment_is_explained_and_succeeds_once_the_operator_has_mended_it(
    stage: Stage, enrollments: Enrollments, own: bool, said: str
) -> None:
    if own:
        enrollments.own["host-a"] = "idh_of_another_host"
        enrollments.used.add("idh_of_another_host")
    else:
        enrollments.good.clear()
    await stage.agent.start("--enroll", ENROLLMENT)
    await stage.agent.logged(said)
    assert "trying again in" in last_line(stage.agent)
    enrollments.own.clear()
    enrollments.good.add(ENROLLMENT)
    await works(stage)


async def test_a_revoked_agent_recovers_when_its_token_is_good_again(stage: Stage, enrollments: Enrollments) -> None:
    await stage.agent.start("--enroll", ENROLLMENT)
    await works(stage)
    await stage.agent.stop()
    revoked = enrollments.own.pop("host-a")
    await stage.agent.start()
    await stage.agent.logged("make a new enrolment token with POST /agents/enroll")
    enrollments.own["host-a"] = revoked
    await works(stage)


async def test_enroll_only_keeps_the_token_and_ends(stage: Stage, enrollments: Enrollments) -> None:
    await stage.agent.start("--enroll", ENROLLMENT, "--enroll-only")
    assert await stage.agent.wait() == 0
    assert last_line(stage.agent).startswith(f"Enrolled as host-a at {stage.control_plane.url}; the token is in ")
    assert len(stage.agent.token_files()) == 1
    await stage.agent.start("--enroll", NEWER, "--enroll-only")
    assert await stage.agent.wait() == 0
    assert last_line(stage.agent).startswith("Already enrolled as host-a")
    del enrollments.own["host-a"]
    enrollments.good = {NEWER}
    await stage.agent.start("--enroll", NEWER, "--enroll-only")
    assert await stage.agent.wait() == 0
    assert last_line(stage.agent).startswith("Enrolled as host-a")


async def test_enroll_only_tells_a_refusal_at_once_and_keeps_nothing(stage: Stage, enrollments: Enrollments) -> None:
    await stage.agent.start("--enroll", NEWER, "--enroll-only")
    assert await stage.agent.wait() == 2
    assert stage.agent.log() == (
        "agent: The control plane refused the enrolment token (HTTP 401: This token is unknown, has expired or was "
        "revoked): make a new enrolment token with POST /agents/enroll and start the agent with --enroll.\n"
    )
    assert stage.agent.token_files() == []


async def test_enroll_only_says_when_a_control_plane_gives_no_token(stage: Stage, enrollments: Enrollments) -> None:
    enrollments.gives = False
    await stage.agent.start("--enroll", ENROLLMENT, "--enroll-only")
    assert await stage.agent.wait() == 2
    assert "gave it no token of its own" in last_line(stage.agent)


async def test_enroll_only_outlasts_a_control_plane_that_just_starts(stage: Stage, enrollments: Enrollments) -> None:
    stage.control_plane.refuse_with = [503, 429]
    await stage.agent.start("--enroll", ENROLLMENT, "--enroll-only")
    assert await stage.agent.wait() == 0
    assert stage.control_plane.refuse_with == []


async def test_enroll_only_gives_up_on_a_control_plane_that_is_not_there(
    stage: Stage, enrollments: Enrollments
) -> None:
    await stage.control_plane.close()
    await stage.agent.start("--enroll", ENROLLMENT, "--enroll-only")
    assert await asyncio.wait_for(stage.agent.process.wait(), 60) == 1
    assert "cannot be reached" in last_line(stage.agent)
    assert last_line(stage.agent).endswith("; gave up after 30 s.")


async def test_a_token_file_open_to_others_is_refused_with_the_command_that_mends_it(
    stage: Stage, enrollments: Enrollments
) -> None:
    await stage.agent.start("--enroll", ENROLLMENT, "--enroll-only")
    await stage.control_plane.link()
    await stage.agent.wait()
    [kept] = stage.agent.token_files()
    kept.chmod(0o644)
    await stage.agent.start()
    assert await stage.agent.wait() == 2
    assert f"`chmod 600 {kept}`" in last_line(stage.agent)
    kept.chmod(0o600)
    await stage.agent.start()
    await works(stage)


async def test_without_a_token_the_agent_says_how_to_get_one(stage: Stage, enrollments: Enrollments) -> None:
    await stage.agent.start()
    assert await stage.agent.wait() == 2
    assert "enrol with --enroll (AGENT_ENROLLMENT_TOKEN)" in stage.agent.log()


async def test_children_never_see_the_enrolment_token(stage: Stage, enrollments: Enrollments) -> None:
    seen = stage.docker.home / "seen"
    stage.docker.on("up", f"env > {seen}")
    stage.agent.extra_environ |= {"AGENT_ENROLLMENT_TOKEN": ENROLLMENT}
    await stage.agent.start()
    link = await stage.control_plane.link()
    await link.deploy("j1")
    await link.final("j1")
    assert ENROLLMENT not in seen.read_text()
    assert "PATH=" in seen.read_text()
