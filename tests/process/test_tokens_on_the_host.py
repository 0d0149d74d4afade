"""`run.py token create`: a way back in on the host, while the control plane runs and while it does not."""

import json
import stat
from pathlib import Path

import httpx
import pytest

from tests.support.commands import done, run
from tests.support.server import ServerProcess
from tests.support.store import sql

DATABASE = "control_plane.db"


def leave(errands: Path, requests: dict[str, str]) -> None:
    errands.mkdir()
    for key, content in requests.items():
        (errands / f"{key}.request").write_text(content)


def answers_in(errands: Path) -> dict[str, str]:
    return {path.name: json.loads(path.read_text())["error"] for path in errands.iterdir()}


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def who(server: ServerProcess, token: str) -> httpx.Response:
    async with server.client() as client:
        return await client.get("/me", headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("role", ["viewer", "root"])
async def test_a_running_control_plane_makes_it_and_knows_it_at_once(role: str) -> None:
    async with ServerProcess() as server:
        directory = server.database_path.parent
        token = (await done(directory, "token", "create", "--role", role, "--name", "way back")).strip()
        me = (await who(server, token)).json()
        assert (me["role"], me["name"], me["organization"]["name"]) == (role, "way back", "default")
        errands = directory / f"{server.database_path.name}.errands"
        assert files_in(errands) == []
        assert stat.S_IMODE(errands.stat().st_mode) == 0o700
        assert token not in server.stderr
        assert sql(server.database_path, "SELECT actor, action, object, outcome FROM audit") == [
            ("run.py token create", "create_token", f"token 1, {role}", "done")
        ]


async def test_without_a_control_plane_the_command_stores_it_itself() -> None:
    async with ServerProcess() as server:
        directory, database = server.database_path.parent, server.database_path
        await server.terminate()
        token = (await done(directory, "token", "create", "--role", "admin")).strip()
        assert all(token.encode() not in path.read_bytes() for path in directory.iterdir() if path.is_file())
        assert sql(database, "SELECT role, name FROM token") == [("admin", "made on the host")]
        assert sql(database, "SELECT actor, object FROM audit") == [("run.py token create", "token 1, admin")]
        assert "audit" in await done(directory, "check")
        await server.start()
        assert (await who(server, token)).json()["role"] == "admin"


async def test_what_cannot_be_made_is_refused_in_one_line_and_nothing_is_stored() -> None:
    async with ServerProcess() as server:
        directory = server.database_path.parent
        for arguments, line in [
            (("--role", "viewer", "--organization", "acme"), "There is no organisation named 'acme'.\n"),
            (("--role", "viewer", "--name", "a\nb"), "name: must be 1 to 100 characters"),
            (("--role", "emperor"), "Argument --role: invalid choice: 'emperor'"),
            ((), "The following arguments are required: --role"),
        ]:
            refused = await run(directory, "token", "create", *arguments)
            assert (refused.status, refused.stdout) == (2, "")
            assert refused.stderr.startswith(line), refused
            assert refused.stderr.count("\n") == 1
        assert sql(server.database_path, "SELECT count(*) FROM token") == [0]


async def test_a_request_that_cannot_be_read_is_answered_and_harms_nothing() -> None:
    async with ServerProcess() as server, server.client() as client:
        errands = Path(f"{server.database_path}.errands")
        leave(errands, {"a": "{", "b": json.dumps({"name": "x"}), "c": "x" * 20_000})
        token = (await done(errands.parent, "token", "create", "--role", "viewer")).strip()
        assert (await who(server, token)).status_code == 200
        answers = answers_in(errands)
        assert set(answers) == {"a.answer", "b.answer", "c.answer"}
        assert all("same version" in error for error in answers.values())
        assert (await client.get("/ready")).status_code == 200


async def test_a_missing_database_is_not_made(tmp_path: Path) -> None:
    refused = await run(tmp_path, "token", "create", "--role", "admin")
    assert refused.status == 2
    assert files_in(tmp_path) == []
