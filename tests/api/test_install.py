"""What hosts fetch to become agents: scripts that hold this server's address and nothing a stranger chose."""

import re
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import yaml

from agent import __version__
from control_plane.api.agent_file import agent_file
from control_plane.api.routes_install import NO_ADDRESS, installer
from tests.support.app import Site
from tests.support.raw_http import ask

SCRIPTS = ("/install.sh", "/cloud-init.yaml")


def address_in(text: str) -> str:
    """Return the address that a script has."""
    found = re.search(r"^server='(.*)'$", text, re.MULTILINE) or re.search(r'"([^"]*)/install[.]sh"', text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("path", SCRIPTS)
@pytest.mark.parametrize(
    "host",
    ["cp.example.com", "cp.example.com:8443", "10.0.0.7:8000", "[::1]:8000", "localhost", "control_plane:80", "a"],
)
async def test_the_scripts_have_the_address_by_which_they_were_fetched(site: Site, path: str, host: str) -> None:
    plain = await ask(site.url, path, ("Host", host))
    assert address_in(plain.text) == f"http://{host}"
    secure = await ask(site.url, path, ("Host", host), ("X-Forwarded-Proto", "https"))
    assert address_in(secure.text) == f"https://{host}"


@pytest.mark.parametrize("path", SCRIPTS)
@pytest.mark.parametrize(
    "host",
    [
        "x';touch /tmp/pwned;'", "$(reboot)", "`reboot`", "a b", 'a"b', "a\\b", "a&b", "a|b", "a/b", "a?b", "a#b",
        "u@h", "a:b", "a:123456", ":80", "", "-o", "a.", "[::1", "[::1]x", "[g]", "a%0ab", "\xe9", "*", "~", "a\tb",
        "x" * 254,
    ],
)  # fmt: skip
async def test_of_a_hostile_host_nothing_gets_into_a_script(site: Site, path: str, host: str) -> None:
    answer = await ask(site.url, path, ("Host", host))
    if answer.status == 400:  # the server's own parser has refused it
        return
    assert answer.text == (await ask(site.url, path, ("Host", "also hostile"))).text
    assert address_in(answer.text) == (NO_ADDRESS if path == "/cloud-init.yaml" else "")


@pytest.mark.parametrize("path", SCRIPTS)
@pytest.mark.parametrize(
    "headers",
    [
        [("X-Forwarded-Proto", "gopher")],
        [("X-Forwarded-Proto", "https, https';reboot;'")],
        [("X-Forwarded-Host", "evil.example")],
        [("Forwarded", "host=evil.example;proto=https")],
    ],
)
async def test_no_other_header_has_a_say_in_the_address(site: Site, path: str, headers: list[tuple[str, str]]) -> None:
    answer = await ask(site.url, path, ("Host", "cp.example.com"), *headers)
    assert address_in(answer.text) == "http://cp.example.com"


@pytest.mark.parametrize("path", SCRIPTS)
async def test_two_hosts_are_none(site: Site, path: str) -> None:
    answer = await ask(site.url, path, ("Host", "cp.example.com"), ("Host", "evil.example"))
    assert answer.status == 400 or address_in(answer.text) in {"", NO_ADDRESS}


async def test_the_installer_is_a_shell_script_for_the_agent_that_is_served(site: Site) -> None:
    answer = await ask(site.url, "/install.sh", ("Host", "cp.example.com"))
    assert answer.headers["content-type"].startswith("text/x-shellscript")
    assert answer.text == installer("http://cp.example.com", agent_file())
    assert re.search(r"@[A-Z_]+@", answer.text) is None


async def test_the_cloud_config_runs_the_installer_and_leaves_the_token_to_its_user(site: Site) -> None:
    answer = await ask(site.url, "/cloud-init.yaml", ("Host", "cp.example.com"), ("X-Forwarded-Proto", "https"))
    assert answer.headers["content-type"].startswith("text/cloud-config")
    assert answer.text.startswith("#cloud-config\n")
    fetch, run = yaml.safe_load(answer.text)["runcmd"]
    assert fetch[-1] == "https://cp.example.com/install.sh"
    assert run == ["sh", fetch[-2], "--server", "https://cp.example.com", "--enroll", "ENROLLMENT_TOKEN"]


async def test_the_agents_file_is_kept_by_whoever_has_it_already(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, verify=False) as client:  # noqa: S501
        first = await client.get("/agent.pyz")
        assert (first.status_code, first.content) == (200, agent_file().content)
        tag = first.headers["etag"]
        assert tag == f'"{agent_file().sha256}"'
        for named in (tag, f'"other", {tag}'):
            again = await client.get("/agent.pyz", headers={"If-None-Match": named})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert (await client.get("/agent.pyz", headers={"If-None-Match": '"other"'})).status_code == 200


def test_the_agents_file_runs_without_any_package_and_is_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "agent.pyz"
    path.write_bytes(agent_file().content)
    # -I and -S: neither the environment nor site-packages lend it anything.
    ran = subprocess.run([sys.executable, "-I", "-S", path, "--version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, __version__), ran.stderr
    assert agent_file.__wrapped__() == agent_file()


def test_the_agents_file_holds_the_agent_the_wire_and_one_library_with_its_licence() -> None:
    names = zipfile.ZipFile(BytesIO(agent_file().content)).namelist()
    own = [name for name in names if name.startswith("control_plane/")]
    assert own == ["control_plane/__init__.py", "control_plane/core/__init__.py", "control_plane/core/wire.py"]
    assert {name.partition("/")[0] for name in names} - {"agent", "control_plane", "websockets", "__main__.py"} == {
        next(name.partition("/")[0] for name in names if name.endswith("/LICENSE"))
    }
    assert not [name for name in names if not name.endswith((".py", "/LICENSE"))]
