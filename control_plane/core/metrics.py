"""Metrics: every number that operators see at GET /metrics, in a registry of its own.

`main` makes one for each app and hands it down; each floor counts what it does at the moment when it is certain.
What changes with every deploy is bound to its labels here, ahead, so that counting it costs a microsecond. No
label grows with the fleet: no agent, project, job or path is one. docs/monitoring.md explains each metric.
"""

import math
import platform

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from control_plane.core.protocol import CloseCode, CommandType
from control_plane.core.states import TERMINAL_JOB_STATUSES, FailureReason, JobStatus

ANSWER_OUTCOMES = ("moved", "logged", "late", "duplicate", "forged", "unknown")
HEALTH_CHECK_OUTCOMES = ("asked", "skipped", "answered", "late", "missed")
PEERS_CLOSE_CODES = (1000, 1005, 1006)
"""What ends a connection from the agent's side (RFC 6455, section 7.4.1): closed, closed without a code, cut."""
REFUSAL_CODES = (
    "certificate_mismatch",
    "certificate_required",
    "draining",
    "flooding",
    "host_not_allowed",
    "hostname_taken",
    "invalid_hostname",
    "origin_not_allowed",
    "too_many_failures",
    "unauthorized",
)
"""Why handshakes are refused; those that the store refuses are added as they come."""
STATUS_CLASSES = (1, 2, 3, 4, 5)

DISPATCH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
EXECUTION_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600)
COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Metrics:
    """The registry and what is in it. Safe to be read from any thread; counted on the event loop."""

    def __init__(self, version: str) -> None:
        # A switch of the whole library: the times at which series began would double what is scraped.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._gauge("build_info", "Which program runs; always 1.", "version", "python").labels(
            version, platform.python_version()
        ).set(1)
        self._define_fleet()
        self._define_jobs()
        self._define_store_and_loops()
        self._define_http()

    def _define_fleet(self) -> None:
        self.agents_connected = self._gauge("agents_connected", "Agents whose socket is up.")
        self.agents_unresponsive = self._gauge(
            "agents_unresponsive", "Agents whose socket is up and who leave health checks unanswered."
        )
        checks = self._counter("health_checks", "Health checks, by what became of them.", "outcome")
        self.health_checks = {outcome: checks.labels(outcome) for outcome in HEALTH_CHECK_OUTCOMES}
        self.agent_connects = self._counter("agent_connects", "Handshakes that were accepted.")
        self._refusals = self._counter("agent_refusals", "Handshakes that were refused, by problem code.", "code")
        for reason in REFUSAL_CODES:  # from zero on: the first of a kind is an increase, too
            self._refusals.labels(reason)
        disconnects = self._counter("agent_disconnects", "Connections of agents that ended, by close code.", "code")
        known = sorted({*PEERS_CLOSE_CODES, *(code.value for code in CloseCode)})
        self._disconnects = {code: disconnects.labels(str(code)) for code in known}
        self._other_disconnects = disconnects.labels("other")
        answers = self._counter("agent_answers", "Answers of agents for jobs, by what became of them.", "outcome")
        self._answers = {outcome: answers.labels(outcome) for outcome in ANSWER_OUTCOMES}
        self.bad_messages = self._counter("agent_bad_messages", "Messages of agents that could not be read.")
        self.answers_waiting = self._gauge("agent_answers_waiting", "Answers of agents that are not stored yet.")

    def _define_jobs(self) -> None:
        accepted = self._counter("jobs_accepted", "Jobs that were stored, by type of command.", "type")
        finished = self._counter(
            "jobs_finished", "Jobs that ended, by type, final status and reason.", "type", "status", "reason"
        )
        dispatch = self._histogram(
            "job_dispatch_seconds", "From a job's creation to the first write of its command.", DISPATCH_BUCKETS, "type"
        )
        execution = self._histogram(
            "job_execution_seconds", "From the last send of a command to the job's end.", EXECUTION_BUCKETS, "type"
        )
        kinds = [kind.value for kind in CommandType]
        self._accepted = {kind: accepted.labels(kind) for kind in kinds}
        self._finished = {key: finished.labels(*key) for kind in kinds for key in _ends(kind)}
        self._dispatch = {kind: dispatch.labels(kind) for kind in kinds}
        self._execution = {kind: execution.labels(kind) for kind in kinds}
        self.jobs_queued = self._gauge("jobs_queued", "Jobs that are stored and not sent, those of offline agents too.")
        self.commands_awaited = self._gauge(
            "commands_awaited", "Commands that connected agents were sent and have not finally answered."
        )
        self.commands_resent = self._counter("commands_resent", "Writes of a command after its first one.")
        self.commands_not_written = self._counter("commands_not_written", "Commands that were put back unsent.")

    def _define_store_and_loops(self) -> None:
        self._batch_changes = self._histogram("writer_batch_changes", "Changes in one commit.", BATCH_BUCKETS)
        self._commit_seconds = self._histogram(
            "writer_commit_seconds", "Time that one batch of changes took, its fsync included.", COMMIT_BUCKETS
        )
        self.writer_waiting = self._gauge("writer_waiting", "Changes that wait for a commit or are in one.")
        self.audit_lost = self._counter("audit_lost", "Refused requests of which the audit could not be written.")
        self._loop_age = self._gauge("loop_age_seconds", "Time since the loop last succeeded.", "loop")
        self._loop_max_age = self._gauge("loop_max_age_seconds", "The age at which the loop is stale.", "loop")

    def _define_http(self) -> None:
        answers = self._counter("http_answers", "HTTP answers, by class of status.", "status")
        self._http_answers = {number: answers.labels(f"{number}xx") for number in STATUS_CLASSES}
        self._http_refusals = self._counter(
            "http_refusals", "HTTP answers that are problems, by status and problem code.", "status", "code"
        )
        self.certificate_ends_at = self._gauge(
            "certificate_ends_timestamp_seconds", "When the TLS certificate in use ends, Unix time; NaN without TLS."
        )
        self.certificate_ends_at.set(math.nan)
        self.connections_turned_away = self._counter(
            "connections_turned_away",
            "Connections without a valid token that were ended, for their address had too many.",
        )
        self.addresses_limited = self._counter(
            "addresses_limited", "Times an address had sent too many requests without a valid token."
        )

    def agent_refused(self, code: str) -> None:
        """Count a refused handshake; `code` is one of our problem codes."""
        self._refusals.labels(code).inc()

    def agent_disconnected(self, code: int) -> None:
        """Count an ended connection. A code of the agent's own invention is counted as `other`."""
        self._disconnects.get(code, self._other_disconnects).inc()

    def answered(self, outcome: str) -> None:
        """Count an agent's answer; `outcome` is one of ANSWER_OUTCOMES."""
        self._answers[outcome].inc()

    def job_accepted(self, kind: str) -> None:
        """Count a stored job. `kind`: a CommandType's value."""
        self._accepted[kind].inc()

    def job_finished(self, kind: str, status: str, reason: str, seconds: float | None) -> None:
        """Count a job's end. `reason` is empty unless it failed; `seconds` since its last send, None if never sent."""
        self._finished[kind, status, reason].inc()
        if seconds is not None:
            self._execution[kind].observe(max(seconds, 0.0))  # clocks are set back at times

    def job_dispatched(self, kind: str, seconds: float) -> None:
        """Note how long a job waited for the first write of its command."""
        self._dispatch[kind].observe(max(seconds, 0.0))

    def committed(self, changes: int, seconds: float) -> None:
        """Note a batch of the writer: how many changes, and how long it took."""
        self._batch_changes.observe(changes)
        self._commit_seconds.observe(seconds)

    def loop_ran(self, loop: str, age_seconds: float, max_age_seconds: float) -> None:
        """Set how old a loop's last success is, and how old it may become."""
        self._loop_age.labels(loop).set(age_seconds)
        self._loop_max_age.labels(loop).set(max_age_seconds)

    def expect_problem(self, status: int, code: str) -> None:
        """Have a problem counted from zero on, so that the first of its kind is seen as an increase."""
        self._http_refusals.labels(str(status), code)

    def http_answered(self, status: int, code: str | None) -> None:
        """Count an HTTP answer; `code` is its problem code, None where it is no problem."""
        self._http_answers[status // 100].inc()
        if code is not None:
            self._http_refusals.labels(str(status), code).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"instadeploy_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"instadeploy_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"instadeploy_{name}", text, labels, buckets=buckets, registry=self.registry)


def _ends(kind: str) -> list[tuple[str, str, str]]:
    """Return the labels of every way in which a job can end."""
    ends = [(kind, status.value, "") for status in TERMINAL_JOB_STATUSES if status is not JobStatus.FAILED]
    return ends + [(kind, JobStatus.FAILED.value, reason.value) for reason in FailureReason]
