"""A store with a short or a long history, and how much work a query or a change is in it.

Used by the tests of query plans. Work is counted in steps of SQLite's virtual machine, which are the same on every
machine, rather than in time.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlmodel import Session

from control_plane.store.database import open_engine
from control_plane.store.migrate import migrate
from tests.support.store import NOW

SMALL, LARGE = 100, 100_000
STEPS = 100
"""The progress handler is called once in so many steps."""
AGENTS = 10
PROJECTS = 20
PAGE = 20
ACTIVE = 40
"""So many of the newest jobs and deployments are not over, in a short history and in a long one."""

FAILURE = 33
"""The only deployment that has an event of a failure; it is `p13` on agent 4."""

ANYWHERE: list[tuple[str | None, int | None]] = [(None, None), ("p3", None), (None, 4), ("p3", 4), ("p3", 3)]
"""`p3` is on agent 4 and was never on agent 3."""


@dataclass
class Probe:
    """A database and what is seen of the work in it."""

    path: Path
    engine: Engine
    statements: list[tuple[str, Any]]
    steps: int = 0

    def plans(self, query: Callable[[Session], object]) -> list[str]:
        """Run a query and return SQLite's plan of everything it asked."""
        self.statements.clear()
        with Session(self.engine) as session:
            query(session)
        asked = [entry for entry in self.statements if not entry[0].startswith("BEGIN")]
        assert asked
        connection = sqlite3.connect(self.path)
        lines = [row[3] for text, args in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", args)]
        connection.close()
        return lines

    def cost(self, query: Callable[[Session], object]) -> int:
        """Run a query and return the hundreds of steps it took."""
        with Session(self.engine) as session:
            session.connection()
            self.steps = 0
            query(session)
        return self.steps

    def cost_of_change(self, change: Callable[[Connection], object]) -> int:
        """Run a change, undo it, and return the hundreds of steps it took."""
        with self.engine.connect() as connection, connection.begin() as transaction:
            self.steps = 0
            change(connection)
            taken = self.steps
            transaction.rollback()
        return taken


@contextmanager
def probe(path: Path, history: int) -> Iterator[Probe]:
    migrate(f"sqlite:///{path}")
    fill(path, history)
    engine = open_engine(f"sqlite:///{path}", read_only=False, pool_size=1)
    made = Probe(path, engine, [])

    @event.listens_for(engine, "connect")
    def _count(connection: sqlite3.Connection, _record: object) -> None:
        def tick() -> int:
            made.steps += 1
            return 0

        connection.set_progress_handler(tick, STEPS)

    @event.listens_for(engine, "before_cursor_execute")
    def _note(_connection: object, _cursor: object, text: str, parameters: Any, *_rest: object) -> None:
        made.statements.append((text, parameters))

    yield made
    engine.dispose()


def fill(path: Path, history: int) -> None:
    """Write agents, deployments and one deploy's job for each; most are over, one in nine failed."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=OFF")
    agent = (
        "INSERT INTO agent (id, hostname, ip_address, status, last_seen, version, architecture, created_at,"
        " capabilities, instance, connection_id) VALUES (?, 'h' || ?, '', 'online', ?, '', '', ?, '', '', '')"
    )
    connection.executemany(agent, [(n, n, str(NOW), str(NOW)) for n in range(1, AGENTS + 1)])
    connection.execute("INSERT INTO compose_file VALUES ('f', x'00', ?)", (str(NOW),))
    rows = [(n, f"p{n % PROJECTS}", n % AGENTS + 1, n > history - ACTIVE, n % 9 == 0) for n in range(1, history + 1)]
    connection.executemany(
        "INSERT INTO deployment (id, project_name, agent_id, status, compose_file_hash, created_at, updated_at,"
        " last_logs) VALUES (?, ?, ?, ?, 'f', ?, ?, '')",
        [
            (n, project, place, "pending" if active else _ended(n, failed=failed), str(NOW), str(NOW))
            for n, project, place, active, failed in rows
        ],
    )
    connection.executemany(
        "INSERT INTO placement (project_name, agent_id, folded_name, released, latest_deployment_id, updated_at)"
        " VALUES (?, ?, ?, 0, 1, ?)",
        {(project, place): (project, place, project, str(NOW)) for _, project, place, _, _ in rows}.values(),
    )
    connection.executemany(
        "INSERT INTO job (id, deployment_id, agent_id, project_name, command_type, status, logs, attempt,"
        " timeout_seconds, created_at, updated_at, deadline_at, sent_instance)"
        " VALUES (?, ?, ?, ?, 'DEPLOY_COMPOSE', ?, '', 0, 900, ?, ?, ?, '')",
        [
            (f"{n:036}", n, place, project, _job_status(n, active=active, failed=failed), *[str(NOW)] * 3)
            for n, project, place, active, failed in rows
        ],
    )
    connection.executemany(
        "INSERT INTO event (at, kind, agent_id, project_name, deployment_id, message) VALUES (?, ?, ?, ?, ?, ?)",
        [event for row in rows for event in _events(*row[:3])],
    )
    connection.executemany(
        "INSERT INTO audit (organization_id, at, token_id, actor, role, address, request_id, action, object, outcome,"
        " previous_hash, hash) VALUES (?, ?, ?, 'ci', 'deployer', '', '', ?, '', ?, '', '')",
        [_audit_row(row[0]) for row in rows],
    )
    connection.commit()
    connection.close()


def _audit_row(number: int) -> tuple[Any, ...]:
    """Return a deploy that is done; one row of all is of another action, one was refused, few are elsewhere."""
    at = (NOW + timedelta(milliseconds=number)).isoformat(" ", "microseconds")
    action = "revoke_token" if number == FAILURE else "deploy"
    outcome = "not_allowed" if number == FAILURE + 1 else "done"
    return 2 if number in range(50, 60) else 1, at, number % 3 or None, action, outcome


AGENTS_BESIDE = 1000
"""What is added to the ids of agents for those that `beside` makes."""


def beside(path: Path, organization_id: int) -> None:
    """Give another organisation what the first one had when it was young: SMALL deployments, newer than all others."""
    agent, more = AGENTS_BESIDE, 10 * LARGE
    connection = sqlite3.connect(path)
    for table, replaced in (
        ("agent", {"id": f"id + {agent}"}),
        ("deployment", {"id": f"id + {more}", "agent_id": f"agent_id + {agent}"}),
        ("placement", {"agent_id": f"agent_id + {agent}", "latest_deployment_id": f"latest_deployment_id + {more}"}),
        (
            "job",
            {
                "id": "'1' || substr(id, 2)",
                "deployment_id": f"deployment_id + {more}",
                "agent_id": f"agent_id + {agent}",
            },
        ),
        (
            "event",
            {"id": f"id + {more}", "deployment_id": f"deployment_id + {more}", "agent_id": f"agent_id + {agent}"},
        ),
    ):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        values = [str(organization_id) if name == "organization_id" else replaced.get(name, name) for name in columns]
        young = {"deployment": "id", "job": "deployment_id", "event": "deployment_id"}.get(table, "0")
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table}"  # noqa: S608
            f" WHERE {young} <= {SMALL}"
        )
    connection.commit()
    connection.close()


def _events(number: int, project: str, place: int) -> list[tuple[Any, ...]]:
    at = (NOW + timedelta(milliseconds=number)).isoformat(" ", "microseconds")
    end = "deploy_failed" if number == FAILURE else "deploy_completed"
    return [
        (at, "deploy_accepted", place, project, number, ""),
        (at, end, place, project, number, ""),
        (at, "agent_connected", place, None, None, ""),
    ]


def _ended(number: int, *, failed: bool) -> str:
    return "failed" if failed else "stopped" if number % 7 == 0 else "superseded"


def _job_status(number: int, *, active: bool, failed: bool) -> str:
    if active:
        return "queued" if number % 2 else "in_progress"
    return "failed" if failed else "completed"


def assert_flat(small_cost: int, large_cost: int) -> None:
    """A history a thousand times longer may deepen B-trees; it may not lengthen the way."""
    assert large_cost <= 3 * small_cost + 20, (small_cost, large_cost)


def assert_indexed(plans: list[str], table: str) -> None:
    touched = [line for line in plans if f" {table}" in line]
    assert touched
    for line in touched:
        through_index = "USING INDEX" in line or "USING COVERING INDEX" in line or "PRIMARY KEY" in line
        assert through_index, line
        # The whole of an index may be read only if it holds nothing but what is not over.
        assert line.startswith("SEARCH") or "_active" in line or "ix_job_deadline" in line, line
