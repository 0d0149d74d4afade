"""The order of one agent's commands: one project's after another, each after the acknowledgement of the one before."""

from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from control_plane.core.compose import folded_name
from control_plane.core.protocol import CommandType
from control_plane.core.states import JobStatus
from control_plane.fleet.lane import Lane
from control_plane.store.jobs import AgentJob

DEPLOY, STOP, STATUS, HEALTH = CommandType


def job(number: int, kind: CommandType = DEPLOY, project: str | None = "web") -> AgentJob:
    name = None if kind is HEALTH else project
    return AgentJob(f"{number:04}", kind, name, JobStatus.QUEUED, 0, 60, datetime.now(UTC), False, "")


def lane_with(*jobs: AgentJob) -> Lane:
    lane = Lane()
    for one in jobs:
        lane.add(one)
    return lane


def send_next(lane: Lane) -> str | None:
    """Send what may be sent, as the dispatcher does; returns its id."""
    taken = lane.next()
    if taken is None:
        return None
    lane.sent(taken)
    return taken.id


def test_a_command_goes_out_only_after_the_one_before_was_acknowledged() -> None:
    lane = lane_with(job(1, project="a"), job(2, project="b"))
    assert send_next(lane) == "0001"
    assert (send_next(lane), lane.unacknowledged) == (None, "0001")
    assert not lane.acknowledged("0002")
    assert lane.acknowledged("0001")
    assert send_next(lane) == "0002"


def test_one_projects_commands_wait_for_the_end_of_the_one_before() -> None:
    lane = lane_with(job(1), job(2, STOP), job(3))
    assert send_next(lane) == "0001"
    lane.acknowledged("0001")
    assert send_next(lane) is None
    lane.over("0001")
    assert send_next(lane) == "0002"
    lane.over("0002")
    assert send_next(lane) == "0003"


def test_a_status_and_a_health_check_pass_a_long_deploy() -> None:
    lane = lane_with(job(1), job(2), job(3, STATUS), job(4, HEALTH))
    assert send_next(lane) == "0001"
    lane.acknowledged("0001")
    assert send_next(lane) == "0003"
    lane.acknowledged("0003")
    assert send_next(lane) == "0004"
    assert lane.running_jobs() == ["0001"]


def test_names_that_compose_folds_together_are_one_project() -> None:
    lane = lane_with(job(1, project="Web"), job(2, project="_web"), job(3, project="shop"))
    assert send_next(lane) == "0001"
    lane.acknowledged("0001")
    assert send_next(lane) == "0003"
    lane.acknowledged("0003")
    assert send_next(lane) is None
    lane.over("0001")
    assert send_next(lane) == "0002"


def test_jobs_that_come_out_of_order_are_sent_in_the_order_of_their_creation() -> None:
    lane = lane_with(job(3), job(1), job(2))
    sent = []
    while (one := send_next(lane)) is not None:
        sent.append(one)
        lane.over(one)
    assert sent == ["0001", "0002", "0003"]


def test_what_runs_from_before_holds_up_its_project_until_it_is_over() -> None:
    lane = Lane()
    lane.add_running(job(1))
    lane.add(job(2))
    lane.add(job(1))
    assert send_next(lane) is None
    lane.over("0001")
    assert send_next(lane) == "0002"


def test_a_job_that_is_to_be_sent_again_is_not_held_up_by_itself() -> None:
    lane = lane_with(job(1))
    lane.add_running(job(1))
    assert send_next(lane) == "0001"


def test_a_job_that_ends_before_it_is_sent_is_not_sent() -> None:
    lane = lane_with(job(1), job(2))
    lane.over("0001")
    assert send_next(lane) == "0002"


@dataclass
class Known:
    job: AgentJob
    state: str = "waiting"


class Lanes(RuleBasedStateMachine):
    """Any order of offers, sends, acknowledgements and ends, beside the two rules said plainly."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane()
        self.known: dict[str, Known] = {}
        self.owed: str | None = None

    @rule(kind=st.sampled_from(CommandType), name=st.sampled_from(["web", "Web", "_web", "shop"]))
    def offer(self, kind: CommandType, name: str) -> None:
        one = job(len(self.known), kind, name)
        self.known[one.id] = Known(one)
        self.lane.add(one)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def offer_again(self, data: st.DataObject) -> None:
        known = self._pick(data)
        if known.state == "waiting" or (known.state == "running" and known.job.kind.changes_project):
            self.lane.add(known.job)

    @rule()
    def send(self) -> None:
        expected = next((known for known in self.known.values() if self._may_go(known)), None)
        assert send_next(self.lane) == (expected.job.id if expected else None)
        if expected:
            expected.state, self.owed = "running", expected.job.id

    def _may_go(self, known: Known) -> bool:
        if self.owed is not None or known.state != "waiting":
            return False
        return not known.job.kind.changes_project or self._project(known) not in map(self._project, self._changing())

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        known = self._pick(data)
        assert self.lane.acknowledged(known.job.id) == (known.job.id == self.owed)
        self.owed = None if known.job.id == self.owed else self.owed

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        known = self._pick(data)
        self.lane.over(known.job.id)
        known.state = "over"
        self.owed = None if known.job.id == self.owed else self.owed

    @invariant()
    def knows_what_runs_and_who_owes_an_acknowledgement(self) -> None:
        assert self.lane.unacknowledged == self.owed
        assert sorted(self.lane.running_jobs()) == sorted(known.job.id for known in self._changing())

    def _pick(self, data: st.DataObject) -> Known:
        return self.known[data.draw(st.sampled_from(sorted(self.known)))]

    def _changing(self) -> list[Known]:
        return [one for one in self.known.values() if one.state == "running" and one.job.kind.changes_project]

    def _project(self, known: Known) -> str:
        return folded_name(known.job.project_name or "")


TestLanes = Lanes.TestCase
