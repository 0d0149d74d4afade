"""What is installed and what it runs in: every package by version and hash, and a container with few rights."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
WANTED = {
    "requirements.txt": PROJECT["project"]["dependencies"],
    "requirements-dev.txt": PROJECT["dependency-groups"]["dev"],
}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]["control-plane"]


def locked(text: str) -> dict[str, Version]:
    """Return the packages of a lock file and their versions; asserts that each has one, and hashes."""
    versions: dict[str, Version] = {}
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    for line in lines:
        what, *hashes = re.split(r"\s+--hash=", line.rstrip())
        pinned = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.+!]+)(?: ;.*)?", what.strip())
        assert pinned, f"not pinned: {line!r}"
        assert hashes, f"no hash: {line!r}"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), f"no SHA-256: {line!r}"
        versions[canonicalize_name(pinned[1])] = Version(pinned[2])
    return versions


@pytest.mark.promise("supply chain")
@pytest.mark.parametrize("name", WANTED)
def test_every_package_is_locked_by_version_and_hash_and_satisfies_what_the_project_asks_for(name: str) -> None:
    versions = locked((ROOT / name).read_text("utf-8"))
    assert len(versions) >= len(WANTED[name]) > 10
    for text in WANTED[name]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), text


@pytest.mark.control("supply chain")
@pytest.mark.parametrize(
    "entry",
    [
        "structlog==26.1\n",
        "structlog>=26.1 \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "structlog==26.1 --hash=md5:00\n",
    ],
)
def test_a_package_without_hash_or_version_would_be_found(entry: str) -> None:
    with pytest.raises(AssertionError):
        locked((ROOT / "requirements.txt").read_text("utf-8") + entry)


@pytest.mark.promise("supply chain")
def test_the_development_tools_run_with_the_very_packages_of_the_server() -> None:
    server, tools = (locked((ROOT / name).read_text("utf-8")) for name in WANTED)
    assert {name: version for name, version in tools.items() if name in server} == server


@pytest.mark.promise("supply chain")
def test_whatever_installs_packages_takes_the_lock_as_it_is_and_asks_for_its_hashes() -> None:
    """Without `--no-deps` an older pip (Debian's, Python 3.11's) looks for the newest of `coverage[toml]` beside the
    lock's `coverage`, and refuses to install anything from the day that a newer one is released.
    """
    texts = {path: (ROOT / path).read_text("utf-8") for path in ("Dockerfile", "Makefile", ".ci/run")}
    installs = [
        (path, line)
        for path, text in texts.items()
        for line in re.sub(r"\\\n", " ", text).splitlines()
        if re.search(r"\bpip\b.*\binstall\b", line) and not line.lstrip().startswith("#")
    ]
    assert {path for path, _ in installs} >= {"Dockerfile", "Makefile"}
    assert [line for _, line in installs if not {"--require-hashes", "--no-deps"} <= set(line.split())] == []


@pytest.mark.promise("supply chain")
def test_the_images_base_is_one_argument_that_a_digest_can_be_given_for() -> None:
    default = re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert len(default) == 1
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE_IMAGE}"}
    assert "@sha256:" in default[0] or re.search(r"^# .*--build-arg BASE_IMAGE=\S+@sha256:", DOCKERFILE, re.MULTILINE)


@pytest.mark.promise("supply chain")
def test_the_image_runs_without_root() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])
    assert not re.search(r"^USER ", DOCKERFILE[DOCKERFILE.rindex("\nCMD") :], re.MULTILINE)


@pytest.mark.promise("supply chain")
def test_the_container_has_no_right_that_it_does_not_need() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "network_mode", "user"} & set(SERVICE)
    assert SERVICE["volumes"] == ["data:/data"], "a named volume only: no directory of the host, no docker.sock"
    assert "docker.sock" not in (DOCKERFILE + yaml.safe_dump(SERVICE))
