"""The documents name only what exists: links, make targets, settings, folders; and their examples can be read."""

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from control_plane.config import Settings
from control_plane.core.protocol import CommandType, ResponseStatus

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "benchmarks", "examples", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

NO_SETTINGS = {
    "ARGS": "a variable of the Makefile",
    "CONTROL_PLANE": "a shell variable of the examples",
    "HELLO_IMAGE": "read by examples/hello/docker-compose.yml",
    "HELLO_PORT": "read by examples/hello/docker-compose.yml",
    "CI_JOB_ID": "a variable of GitLab's CI",
    "JOB_ID": "a shell variable of the examples",
    "TAG": "stands for any variable of a Compose file",
    "ENROLLMENT_TOKEN": "stands for an enrolment token in the cloud-config",
    "HOME": "where Docker keeps its logins",
    "PAGE": "set in examples/hello/docker-compose.yml",
    "REQUIRE_DOCKER": "read by the tests",
    "REQUIRE_FAULTS": "read by the tests",
    "RENEWED_LINEAGE": "set by certbot for its hooks",
    "VAR": "stands for any variable of a Compose file",
    "FAULT_SEED": "read by the tests",
    "FULL": "a value of SQLite's synchronous",
    "NORMAL": "a value of SQLite's synchronous",
}
"""Words in capitals that are neither settings nor of the wire, and what they are."""

NO_OWN_PATHS = (
    {"bin", "dev", "etc", "lib", "opt", "proc", "run", "sbin", "srv", "sys", "tmp", "usr", "var"}
    | {"data"}  # the container's volume
    | {"agents", "deployments", "jobs", "projects"}  # routes
)
"""First parts of paths that mean the same wherever a document is read."""


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def fenced_blocks(name: str, *languages: str) -> list[str]:
    """Return the contents of a document's code blocks, of all languages if none is named."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL)
    return [code for language, code in blocks if not languages or language in languages]


def code_spans(name: str) -> list[str]:
    """Return what a document has in backticks within its sentences."""
    prose = re.sub(r"^```.*?^```$", "", text_of(name), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def code_of(name: str) -> str:
    return "\n".join([*fenced_blocks(name), *code_spans(name)])


def anchors_of(name: str) -> set[str]:
    """Return the anchors that code hosts give the headings of a document."""
    prose = re.sub(r"^```.*?^```$", "", text_of(name), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(name: str) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```$", "", text_of(name), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose)):
        if not re.match(r"[a-z]+:", target):
            yield target


def make_targets() -> set[str]:
    makefile = text_of("Makefile").replace("$(VENV)", ".venv")
    return {target for target in re.findall(r"^([\w./-]+):(?!=)", makefile, re.MULTILINE) if target != ".PHONY"}


def targets_named_in(name: str) -> set[str]:
    return set(re.findall(r"(?:^|[\s;&])make ([a-z.][\w./-]*)", code_of(name), re.MULTILINE))


def words_in_capitals(name: str) -> set[str]:
    """Return names of variables: alone or with a value in backticks, and set or used in a block for a shell."""
    words = {
        found[1] for span in code_spans(name) if (found := re.match(r"\$?\{?([A-Z][A-Z0-9_]{2,})\}?(=.*)?$", span))
    }
    for block in fenced_blocks(name, "sh", "bash", "ini"):
        words |= set(re.findall(r"(?:^|\s)([A-Z][A-Z0-9_]{2,})=", block, re.MULTILINE))
        words |= set(re.findall(r"\$\{?([A-Z][A-Z0-9_]{2,})", block))
    return words


def test_there_are_documents_to_check() -> None:
    assert {"README.md", "TESTING.md", "CHANGELOG.md", "docs/settings.md", "docs/architecture.md"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_within_the_repository_leads_somewhere(name: str) -> None:
    for link in links_of(name):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name} links to {path}, which is not there"
        if anchor:
            other = str(target.resolve().relative_to(ROOT))
            assert anchor in anchors_of(other), f"{name} links to {link}, and {other} has no such heading"


def test_links_are_found_and_anchors_made_as_code_hosts_make_them() -> None:
    assert "docs/operations.md#tls" in set(links_of("README.md"))
    assert {"writing-a-test", "hypothesis-and-failures-that-come-and-go"} <= anchors_of("TESTING.md")


@pytest.mark.parametrize("name", NAMES)
def test_every_make_target_that_is_named_exists(name: str) -> None:
    assert targets_named_in(name) <= make_targets()


def test_every_make_target_is_told_in_the_readme_or_in_testing() -> None:
    for_people = {target for target in make_targets() if "/" not in target}
    assert {"run", "demo", "test", "lint"} <= for_people
    assert for_people <= targets_named_in("README.md") | targets_named_in("TESTING.md")


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_that_is_named_exists(name: str) -> None:
    settings = {field.upper() for field in Settings.model_fields}
    agent_settings = set(re.findall(r'"([A-Z][A-Z_]+)"', text_of("agent/settings.py")))
    wire = {word.value for word in (*CommandType, *ResponseStatus)}
    methods = {"GET", "POST"}
    assert words_in_capitals(name) <= settings | agent_settings | wire | methods | set(NO_SETTINGS)


def test_every_exception_from_that_is_used() -> None:
    used = {word for name in NAMES for word in words_in_capitals(name)}
    assert set(NO_SETTINGS) <= used


def test_every_setting_of_the_agent_is_told_in_its_document() -> None:
    read = set(re.findall(r'pick\(flags\.\w+, "([A-Z_]+)"\)', text_of("agent/settings.py")))
    flags = set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', text_of("agent/settings.py"))) - {"--version"}
    assert len(read) == 5
    assert read | flags <= set(code_spans("docs/agents.md"))


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(text_of("README.md").splitlines()) < 200


def test_every_folder_of_tests_is_told() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert {"unit", "e2e"} <= folders
    told = set(re.findall(r"^\| `tests/(\w+)` \|", text_of("TESTING.md"), re.MULTILINE))
    assert told == folders


def test_every_decision_says_why_and_what_else_was_thought_of() -> None:
    decisions = [name for name in NAMES if name.startswith("docs/decisions/")]
    numbers = [int(Path(name).name[:4]) for name in decisions]
    assert numbers == list(range(1, len(numbers) + 1))
    for name in decisions:
        headings = re.findall(r"^## (.+)$", text_of(name), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "Rejected"], name
        assert len(text_of(name).splitlines()) <= 60, f"{name} is longer than a page"


@pytest.mark.parametrize("name", NAMES)
def test_no_document_names_a_path_of_the_machine_it_was_written_on(name: str) -> None:
    paths = re.findall(r"(?<![\w.:/}\"<~-])/([a-zA-Z][\w.-]*)/[\w.-]", text_of(name))
    own = {
        first
        for first in paths
        if first in {"home", "root", "Users"} or ((Path("/") / first).is_dir() and first not in NO_OWN_PATHS)
    }
    assert own == set()


@pytest.mark.parametrize("name", NAMES)
def test_shell_and_json_examples_can_be_read_by_what_they_are_for(name: str) -> None:
    for shell in ("sh", "bash"):
        for block in fenced_blocks(name, shell):
            checked = subprocess.run([shell, "-n"], input=block, capture_output=True, text=True, check=False)
            assert checked.returncode == 0, f"{name}: {checked.stderr}\n{block}"
    for block in fenced_blocks(name, "json"):
        json.loads(block)
