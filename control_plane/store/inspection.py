"""Looks a database over: SQLite's own checks, the schema's revision, and rows that contradict each other.

For the commands check, backup and restore. Each rule is one statement, and so sees one moment, also while a
control plane writes; none changes anything.
"""

import hashlib
import sqlite3
from dataclasses import dataclass

from control_plane.store.migrate import known_revisions

MOST_FAULTS = 10
"""SQLite names each damaged page; the first ones tell all that an operator can use."""
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A rule that rows break: what is wrong, what follows from it, how many rows, and the first of them."""

    what: str
    meaning: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a database, in numbers for people."""

    deployments: int
    jobs: int
    newest_at: str | None
    """When its newest deployment was made, UTC."""
    waiting: int
    """Jobs that were not sent yet."""
    in_flight: int


def find_damage(db: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with the file itself, at most MOST_FAULTS; nothing for a sound one.

    Raises sqlite3.DatabaseError when it is no database at all.
    """
    try:
        rows = db.execute(f"PRAGMA integrity_check({MOST_FAULTS})").fetchall()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise
        return [str(error)]
    return [line for (text,) in rows for line in str(text).splitlines() if line != "ok" and line[:3] != "***"]


def find_broken_references(db: sqlite3.Connection) -> list[str]:
    """Return which rows refer to none, by table; nothing when all do."""
    found: dict[tuple[str, str], int] = {}
    for table, _row, parent, _key in db.execute("PRAGMA foreign_key_check"):
        found[table, parent] = found.get((table, parent), 0) + 1
    return [f"{count} of {table} refer to a {parent} that is not there" for (table, parent), count in found.items()]


def read_revision(db: sqlite3.Connection) -> str | None:
    """Return the schema's revision; None if this is not a control plane's database."""
    try:
        row = db.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return None
    return str(row[0]) if row else None


def is_newer(revision: str) -> bool:
    """Whether only a newer program than this knows the revision."""
    return revision not in known_revisions()


def is_older(revision: str) -> bool:
    """Whether this program will bring the revision up to date at its start."""
    return revision in known_revisions()[1:]


def read_contents(db: sqlite3.Connection) -> Contents:
    """Return what is in a sound database, of any revision that this program knows."""
    return Contents(*db.execute(_CONTENTS).fetchone())


def find_contradictions(db: sqlite3.Connection) -> list[Contradiction]:
    """Return the rules that rows break."""
    db.create_function("sha256_of", 1, _sha256, deterministic=True)
    broken = []
    agents = {name for _, name, *_ in db.execute("PRAGMA table_info(agent)")}
    for what, meaning, rule in _RULES:
        query = rule if "forgotten_at" in agents else rule.replace(_OF_KNOWN_AGENTS, "")
        keys = [str(key) for (key,) in db.execute(query)]
        if keys:
            broken.append(Contradiction(what, meaning, len(keys), tuple(keys[:EXAMPLES])))
    return broken


def _sha256(content: bytes | str) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()


_OF_KNOWN_AGENTS = " AND a.forgotten_at IS NULL"
"""Older schemas, which are looked at too, have nobody forget an agent."""
_CONTENTS = """
SELECT (SELECT count(*) FROM deployment), (SELECT count(*) FROM job),
       (SELECT created_at FROM deployment ORDER BY id DESC LIMIT 1),
       (SELECT count(*) FROM job WHERE status = 'queued' AND sent_at IS NULL),
       (SELECT count(*) FROM job WHERE status IN ('queued', 'in_progress') AND sent_at IS NOT NULL)
"""
_RULES = (
    (
        "projects whose latest deployment is not there",
        "GET /projects leaves them out",
        """SELECT p.project_name FROM placement p LEFT JOIN deployment d
           ON d.id = p.latest_deployment_id AND d.project_name = p.project_name AND d.agent_id = p.agent_id
           WHERE d.id IS NULL""",
    ),
    (
        "projects whose current deployment is not one of theirs that runs",
        "what is said to run may not run; deploy them again",
        """SELECT p.project_name FROM placement p LEFT JOIN deployment d
           ON d.id = p.current_deployment_id AND d.project_name = p.project_name AND d.agent_id = p.agent_id
           WHERE p.current_deployment_id IS NOT NULL AND coalesce(d.status, '') != 'running'""",
    ),
    (
        "running deployments that are not the current one of their project",
        "they stay running until the project is deployed or stopped again",
        """SELECT d.id FROM deployment d LEFT JOIN placement p
           ON p.project_name = d.project_name AND p.agent_id = d.agent_id AND p.current_deployment_id = d.id
           WHERE d.status = 'running' AND p.agent_id IS NULL""",
    ),
    (
        "deployments whose project is nowhere",
        "GET /projects does not show them",
        """SELECT d.id FROM deployment d LEFT JOIN placement p
           ON p.project_name = d.project_name AND p.agent_id = d.agent_id JOIN agent a ON a.id = d.agent_id
           WHERE p.agent_id IS NULL AND a.forgotten_at IS NULL""",
    ),
    (
        "pending deployments without a job that is under way",
        "they stay pending for ever; deploy their projects again",
        "SELECT id FROM deployment d WHERE d.status = 'pending' AND NOT EXISTS"
        " (SELECT 1 FROM job j WHERE j.deployment_id = d.id AND j.command_type = 'DEPLOY_COMPOSE'"
        " AND j.status IN ('queued', 'in_progress'))",
    ),
    (
        "deploys under way whose deployment is over",
        "their end will change nothing",
        "SELECT j.id FROM job j JOIN deployment d ON d.id = j.deployment_id WHERE j.command_type = 'DEPLOY_COMPOSE'"
        " AND j.status IN ('queued', 'in_progress') AND d.status != 'pending'",
    ),
    (
        "finished jobs with pieces of a log that were not put together",
        "their logs say some things twice",
        "SELECT DISTINCT j.id FROM job_log l JOIN job j ON j.id = l.job_id WHERE j.status IN ('completed', 'failed')",
    ),
    (
        "finished jobs without the time of their end",
        "retention never removes them",
        "SELECT id FROM job WHERE status IN ('completed', 'failed') AND finished_at IS NULL",
    ),
    (
        "Compose files that are not what their SHA-256 says",
        "what is sent to agents may not be what was deployed",
        "SELECT sha256 FROM compose_file WHERE sha256 != sha256_of(content)",
    ),
)
"""What is wrong, what follows from it, and the keys of the rows: each rule holds after every transaction."""
