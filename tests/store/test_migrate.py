"""Start-up brings any database of ours to this program's schema, and refuses all others in one clear line."""

import contextlib
import multiprocessing
import re
import sqlite3
from pathlib import Path

import pytest
from sqlmodel import SQLModel, create_engine

from control_plane.core.startup import StartupError
from control_plane.store import models, models_audit
from control_plane.store.migrate import migrate
from tests.support.store import sql

STARTERS = 6
OBJECTS = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name != 'alembic_version'"
COLUMNS = """
SELECT t.name, c.name, c."notnull", c.pk, f."table", f."to" FROM sqlite_master t, pragma_table_info(t.name) c
LEFT JOIN pragma_foreign_key_list(t.name) f ON f."from" = c.name WHERE t.type = 'table' ORDER BY 1, 2
"""


def shape(database: Path) -> dict[str, object]:
    """Return tables with their columns and keys, and indexes with their conditions, whoever made them."""
    indexes = {
        name: re.sub(r'[\s"()]+', " ", statement) for kind, name, statement in sql(database, OBJECTS) if kind == "index"
    }
    kept = [row for row in sql(database, COLUMNS) if row[0] not in {"alembic_version", "sqlite_sequence"}]
    unique = "SELECT t.name, i.name, i.origin FROM sqlite_master t, pragma_index_list(t.name) i"
    unique += " WHERE i.origin != 'c' AND t.name != 'alembic_version'"
    return {"columns": kept, "indexes": indexes, "constraints": sorted(sql(database, unique))}


def test_from_nothing_the_migrations_make_exactly_what_the_models_say(database: Path, tmp_path: Path) -> None:
    migrate(f"sqlite:///{database}")
    by_models = tmp_path / "models.db"
    engine = create_engine(f"sqlite:///{by_models}")
    SQLModel.metadata.create_all(engine, tables=[getattr(model, "__table__") for model in _tables()])  # noqa: B009
    engine.dispose()
    made = shape(database)
    assert made == shape(by_models)
    assert len(_tables()) == len({row[0] for row in made["columns"]})  # type: ignore[attr-defined]


def _tables() -> list[type[SQLModel]]:
    named = {**vars(models), **vars(models_audit)}
    return [model for model in named.values() if hasattr(model, "__table__")]


def test_ids_of_agents_and_deployments_are_never_given_twice(database: Path) -> None:
    migrate(f"sqlite:///{database}")
    made = dict(
        sql(database, "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'")
    )
    assert set(made) == {"agent", "audit", "deployment", "event", "token"}


def test_the_files_are_for_their_owner_alone(database: Path) -> None:
    migrate(f"sqlite:///{database}")
    with contextlib.closing(sqlite3.connect(database)) as writing, writing:
        writing.execute("CREATE TABLE something (id)")
        modes = {path.name: path.stat().st_mode & 0o777 for path in database.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) > 1, "the WAL is there too"


def test_a_second_start_changes_nothing(database: Path) -> None:
    migrate(f"sqlite:///{database}")
    before = sql(database, "SELECT * FROM sqlite_master")
    sql(database, "INSERT INTO compose_file VALUES ('f', x'00', '2026-01-01 00:00:00')")
    migrate(f"sqlite:///{database}")
    assert sql(database, "SELECT * FROM sqlite_master") == before
    assert sql(database, "SELECT sha256 FROM compose_file") == ["f"]


def test_a_migration_that_fails_halfway_leaves_nothing_behind(database: Path) -> None:
    sql(database, "CREATE TABLE job (mine TEXT)")
    with pytest.raises(StartupError):
        migrate(f"sqlite:///{database}")
    assert sql(database, "SELECT name FROM sqlite_master") == ["job"]


def test_a_database_of_a_newer_program_is_refused_and_left_as_it_is(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(f"sqlite:///{database}")
    sql(database, "UPDATE alembic_version SET version_num = '9999'")
    monkeypatch.chdir(database.parent)
    with pytest.raises(StartupError) as refused:
        migrate(f"sqlite:///./{database.name}")
    line = str(refused.value)
    assert f"The database {database} was written by a newer control plane" in line
    assert "9999" in line
    assert "\n" not in line
    assert sql(database, "SELECT version_num FROM alembic_version") == ["9999"]


@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at by SQLite" * 40, b"\x00" * 5000])
def test_a_file_that_is_not_a_database_is_refused_and_left_as_it_is(database: Path, content: bytes) -> None:
    database.write_bytes(content)
    with pytest.raises(StartupError) as refused:
        migrate(f"sqlite:///{database}")
    assert str(refused.value) == f"The database {database} cannot be opened: file is not a database."
    assert database.read_bytes() == content


@pytest.mark.parametrize("path", ["missing/control_plane.db", "."])
def test_a_place_where_no_file_can_be_is_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartupError, match="cannot be opened") as refused:
        migrate(f"sqlite:///{path}")
    assert str((tmp_path / path).resolve()) in str(refused.value)


def test_processes_that_start_at_once_on_an_empty_directory_all_start(database: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, errors = spawn.Barrier(STARTERS), spawn.Queue()
    processes = [spawn.Process(target=_start, args=(str(database), barrier, errors)) for _ in range(STARTERS)]
    for process in processes:
        process.start()
    assert [errors.get(timeout=60) for _ in processes] == [""] * STARTERS
    for process in processes:
        process.join()
    assert sql(database, "SELECT count(*) FROM alembic_version") == [1]


def _start(database: str, barrier, errors) -> None:  # type: ignore[no-untyped-def]
    barrier.wait(60)
    try:
        migrate(f"sqlite:///{database}")
    except (StartupError, sqlite3.Error) as error:
        errors.put(str(error))
    else:
        errors.put("")
