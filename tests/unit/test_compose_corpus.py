"""Our verdict on whole Compose files beside the real Compose binary's, which needs no engine for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.core.compose import read_compose
from control_plane.core.errors import InvalidComposeFileError

CORPUS = Path(__file__).parent / "compose_corpus"
VALID = sorted((CORPUS / "valid").glob("*.yml"))
INVALID = sorted((CORPUS / "invalid").glob("*.yml"))
COMPOSE = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

WE_REFUSE_MORE = {
    "several documents": "services: {a: {image: x}}\n---\nservices: {b: {image: x}}\n",
    "a tag of nobody's": "services: {a: {image: !mine x}}\n",
    "no service at all": "services: {}\n",
    "nesting over 64": f"x-deep: {'[' * 70}{']' * 70}\nservices: {{a: {{image: x}}}}\n",
}
"""What Compose takes and we do not: one file means one thing, and the bounds keep the service alive."""

ONLY_THE_HOST_KNOWS = {
    "a required variable": "services: {a: {image: 'x:${TAG:?needed}'}}\n",
    "an image from a variable": "services: {a: {image: '${IMAGE}'}}\n",
    "a number from a variable": "services: {a: {image: x, deploy: {replicas: '${N:-many}'}}}\n",
    "a file beside it": "services: {a: {image: x, env_file: web.env}}\n",
    "an included file": "include: [other.yml]\n",
    "a service of another file": "services: {a: {extends: {file: other.yml, service: b}}}\n",
    "a profile": "services: {a: {image: x, depends_on: [b]}, b: {image: x, profiles: [p]}}\n",
}
"""What Compose refuses here and may take on the host, where variables and files can be there."""


def our_verdict(source: str) -> str | None:
    try:
        read_compose(source.encode(), "proj")
    except InvalidComposeFileError as error:
        return error.detail
    return None


def compose_verdict(source: str, directory: Path) -> str | None:
    assert COMPOSE is not None
    file = directory / "docker-compose.yml"
    file.write_text(source)
    run = subprocess.run(
        [COMPOSE, "-p", "proj", "-f", str(file), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": str(directory)},
    )
    return run.stderr if run.returncode else None


needs_compose = pytest.mark.skipif(COMPOSE is None, reason="the docker-compose binary is not installed")


def test_the_corpus_is_there() -> None:
    assert len(VALID) >= 15
    assert len(INVALID) >= 15


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_a_valid_file_is_taken(file: Path) -> None:
    assert our_verdict(file.read_text()) is None


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_an_invalid_file_is_refused_at_the_place_where_it_is_wrong(file: Path) -> None:
    source = file.read_text()
    expected = source.splitlines()[0].removeprefix("# at: ")
    with pytest.raises(InvalidComposeFileError) as refused:
        read_compose(source.encode(), "proj")
    assert refused.value.fields[0].field == expected
    assert refused.value.detail.startswith(f"{expected}: {refused.value.fields[0].reason}")


@needs_compose
@pytest.mark.parametrize("file", [*VALID, *INVALID], ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_compose_itself_judges_the_file_as_we_do(file: Path, tmp_path: Path) -> None:
    source = file.read_text()
    ours, theirs = our_verdict(source), compose_verdict(source, tmp_path)
    assert (ours is None) == (theirs is None), f"we say {ours!r}, Compose says {theirs!r}"


@needs_compose
@pytest.mark.parametrize("source", WE_REFUSE_MORE.values(), ids=WE_REFUSE_MORE.keys())
def test_we_refuse_on_purpose_what_compose_would_take(source: str, tmp_path: Path) -> None:
    assert our_verdict(source) is not None
    assert compose_verdict(source, tmp_path) is None


@needs_compose
@pytest.mark.parametrize("source", ONLY_THE_HOST_KNOWS.values(), ids=ONLY_THE_HOST_KNOWS.keys())
def test_what_only_the_host_can_judge_is_not_refused_here(source: str, tmp_path: Path) -> None:
    assert our_verdict(source) is None
    assert compose_verdict(source, tmp_path) is not None
