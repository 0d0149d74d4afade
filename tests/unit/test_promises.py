"""What docs/promises.md promises has tests that prove it, and controls that show that these can fail."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISED = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/promises.md").read_text(), re.MULTILINE)
SABOTAGE = ROOT / "tests/support/sabotage"


def marked(kind: str) -> set[str]:
    """Return the names with which tests are marked `promise` or `control`."""
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    return {name for text in texts for name in re.findall(rf'pytest\.mark\.{kind}\("([^"]+)"\)', text)}


def test_the_promises_are_numbered_without_a_gap() -> None:
    assert [name for name in PROMISED if name.isdigit()] == [str(number) for number in range(1, 23)]


@pytest.mark.parametrize("kind", ["promise", "control"])
def test_each_promise_has_its_tests_and_each_test_its_promise(kind: str) -> None:
    assert marked(kind) == set(PROMISED)


def test_no_guard_is_taken_out_that_no_control_uses() -> None:
    texts = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if SABOTAGE not in path.parents)
    guards = {path.stem for path in SABOTAGE.glob("*.py")} - {"__init__", "__main__"}
    assert guards == {guard for guard in guards if re.search(rf"\b{guard}\b", texts)}
