"""House rules that no linter knows: short files with a purpose, said at their top, at home on every machine."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("control_plane", "agent", "tests", "benchmarks", "examples")
MAX_LINES = 300
VENDORED = "static"
HOMES = re.compile(r"(?<![\w.])/(?:home|root|Users)/\w|(?<![\w.])/(?:work|workspace)/\w")
"""Paths of the machine on which somebody wrote a file."""


def sources() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if VENDORED not in path.parts]
    assert len(found) > 100, "looking in the wrong place"
    return sorted(found)


SOURCES = sources()
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_no_source_file_is_too_long_to_be_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    assert [name for name in NAMES if Path(name).name in drawers or "utils" in Path(name).parts] == []


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_no_file_mentions_the_machine_it_was_written_on(path: Path) -> None:
    if path != Path(__file__):
        assert HOMES.findall(path.read_text()) == []


def test_the_agent_needs_no_package_but_websockets() -> None:
    program = "import sys, agent.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        # -I and -S: neither the environment nor site-packages' own start-up files add to what is loaded.
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {[str(ROOT), *_site_packages()]}; {program}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(loaded) - sys.stdlib_module_names - {"__main__"} == {"agent", "control_plane", "websockets"}


def _site_packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]
