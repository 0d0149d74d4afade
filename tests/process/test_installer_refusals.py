"""When the installer cannot do its work, or shall not, it says all that it must and leaves the host as it was.

Each test compares the whole file tree of the host, what `systemctl` was asked for, and what the control plane saw.
"""

import pytest

from control_plane.api.agent_file import agent_file
from control_plane.api.routes_install import installer
from tests.support.clean_host import CleanHost
from tests.support.control_plane_stand_in import ControlPlaneStandIn
from tests.support.installing import AGENT, ENROLLMENT, ENV, NEWER, STARTED, UNIT, enrollments, script


async def test_a_refused_token_is_told_at_once_and_leaves_nothing(host: CleanHost, plane: ControlPlaneStandIn) -> None:
    before = host.tree()
    ended = await host.run(script(plane), "--enroll", NEWER)
    assert ended.status == 1
    assert "refused the enrolment token (HTTP 401: This token is unknown" in ended.output
    assert "nothing was installed or changed" in ended.output
    assert (host.tree(), host.calls()) == (before, [])


async def test_an_agent_that_is_not_the_scripts_own_is_not_run(host: CleanHost, plane: ControlPlaneStandIn) -> None:
    before = host.tree()
    plane.files["/agent.pyz"] = agent_file().content + b" "
    ended = await host.run(script(plane), "--enroll", ENROLLMENT)
    assert ended.status == 1
    assert "not the one that belongs to this script" in ended.output
    assert (host.tree(), host.calls(), enrollments(plane).asked) == (before, [], [])


async def test_all_that_is_missing_is_listed_and_nothing_is_changed(
    host: CleanHost, plane: ControlPlaneStandIn
) -> None:
    host.take_away("docker")
    host.put("id", "#!/bin/sh\necho 1000\n")
    (host.root / "run/systemd/system").rmdir()
    await plane.close()
    before = host.tree()
    ended = await host.run(script(plane))
    assert ended.status == 1
    listed = [line.removeprefix("  - ") for line in ended.output.splitlines() if line.startswith("  - ")]
    assert [line.partition(":")[0].partition(" (")[0] for line in listed] == [
        "root",
        "systemd",
        "Docker Engine",
        "Docker Compose",
        "a way to the control plane",
        "an enrolment token",
    ]
    assert "nothing was changed" in ended.output
    assert (host.tree(), host.calls()) == (before, [])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("compose", "Docker Compose: the package"),
        ("python", "Python 3.11 or later as python3 (found: Python 3.9.2)"),
        ("no python", "Python 3.11 or later as python3 (found: none)"),
        ("library", "the whole standard library"),
        ("unit", f"/{UNIT} is there already and not this installer's"),
        ("address", "the control plane's address: --server"),
    ],
)
async def test_each_single_thing_that_is_missing_is_named(
    host: CleanHost, plane: ControlPlaneStandIn, spoil: str, said: str
) -> None:
    python = (host.tools / "python3").resolve()
    match spoil:
        case "compose":
            (host.tools / "no-compose").touch()
        case "python":
            host.put("python3", '#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2 || exit 1\n')
        case "no python":
            host.take_away("python3")
        case "library":
            host.put("python3", f'#!/bin/sh\ncase "$*" in *"import asyncio"*) exit 1; esac\nexec {python} "$@"\n')
        case "unit":
            (host.root / UNIT).write_text("[Service]\nExecStart=/opt/instadeploy/.venv/bin/python -m agent\n")
    before = host.tree()
    text = installer("", agent_file()) if spoil == "address" else script(plane)
    ended = await host.run(text, "--enroll", ENROLLMENT)
    listed = [line for line in ended.output.splitlines() if line.startswith("  - ")]
    assert (ended.status, len(listed)) == (1, 1), ended.output
    assert said in listed[0]
    assert (host.tree(), host.calls()) == (before, [])


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(host: CleanHost, plane: ControlPlaneStandIn) -> None:
    before = host.tree()
    ended = await host.run(script(plane), "--dry-run", "--enroll", ENROLLMENT)
    assert ended.status == 0
    told = ended.output.splitlines()
    assert all(line.startswith("Would: ") for line in told)
    assert [word for word in ("agent.pyz", "Enrol", AGENT, ENV, UNIT, "start") if word not in ended.output] == []
    assert (host.tree(), host.calls(), enrollments(plane).asked) == (before, [], [])


@pytest.mark.parametrize(
    "value",
    ["$(touch /var/pwned)", "`touch /var/pwned`", "x;touch /var/pwned", "x\ntouch /var/pwned", "' ; touch /var/pwned #",
     '"x', "x y", "x\\", "*", "é", "x\nAGENT_SECRET_TOKEN=theirs"],
)  # fmt: skip
@pytest.mark.parametrize("option", ["--enroll", "--server", "--hostname"])
async def test_values_that_mean_something_to_a_shell_are_refused(
    host: CleanHost, plane: ControlPlaneStandIn, option: str, value: str
) -> None:
    before = host.tree()
    given = {"--enroll": ENROLLMENT, option: f"http://{value}" if option == "--server" else value}
    ended = await host.run(script(plane), *(word for pair in given.items() for word in pair))
    assert ended.status == 1
    assert option in ended.output
    assert (host.tree(), host.calls(), enrollments(plane).asked) == (before, [], [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--server", "ftp://x"], "--server must be"),
        (["--server", "http://x/path"], "without anything after it"),
        (["--enroll"], "--enroll needs a value"),
        (["--enroll=ide_x"], "with a space between"),
        (["--force"], "no option --force"),
        (["ide_x"], "behind its option"),
    ],
)
async def test_options_that_cannot_be_right_are_explained(
    host: CleanHost, plane: ControlPlaneStandIn, arguments: list[str], said: str
) -> None:
    before = host.tree()
    ended = await host.run(script(plane), *arguments)
    assert ended.status == 1
    assert said in ended.output
    assert host.tree() == before


async def test_a_download_that_was_cut_off_does_nothing_wherever_it_was_cut(
    host: CleanHost, plane: ControlPlaneStandIn
) -> None:
    # On an enrolled host, where a call without its arguments would find all that it needs.
    assert (await host.run(script(plane), "--enroll", ENROLLMENT)).status == 0
    await plane.link()  # of --enroll-only
    await plane.link()  # of the service, which is up now
    whole = script(plane).encode()
    ends = [at + 1 for at, letter in enumerate(whole) if letter == ord("\n")][:-1]
    ends += range(len(whole) - 60, len(whole) - 1)  # within the last lines
    cuts = host.tools / "cuts"
    cuts.mkdir()
    for end in ends:
        (cuts / str(end)).write_bytes(whole[:end])
    before, asked = host.tree(), list(enrollments(plane).asked)
    loop = "for cut in /tools/cuts/*; do sh -s -- --uninstall < $cut; done\n"
    await host.run(loop)
    assert len(ends) > 300
    assert (host.tree(), host.calls(), enrollments(plane).asked) == (before, STARTED, asked)
    (cuts / "whole").write_bytes(whole)
    await host.run(loop)
    assert host.calls() == [*STARTED, "disable --now --quiet instadeploy-agent.service", "daemon-reload"]
