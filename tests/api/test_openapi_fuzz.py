"""Requests that schemathesis makes from the OpenAPI document, valid and not: each is answered as the document says."""

import asyncio
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, StopReason, events, from_schema

from tests.api.conftest import OpenSite
from tests.support.app import API_TOKEN, Site, contract
from tests.support.go_agent import GoAgent

MAX_SECONDS = 35
CONFIG: dict[str, Any] = {
    "max-time": MAX_SECONDS,
    "request-timeout": 20,
    "generation": {"max-examples": 15, "database": "none"},
    "checks": {
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503", "507"]},
        # A Compose file that fits no schema of JSON's is refused, however valid the request around it is.
        "positive_data_acceptance": {"enabled": False},
    },
}


TURNS_AGENTS_AWAY = {"POST /agents/{agent_id}/token", "DELETE /agents/{agent_id}/token"}
"""After these the agent is gone for good, and whoever deploys waits for it: they are tried when all else was."""


OF_THE_TOKEN = {"headers": {"Authorization": f"Bearer {API_TOKEN}"}}
OF_A_STRANGER: dict[str, Any] = {
    "max-time": 10,
    "generation": {"max-examples": 3, "database": "none"},
    # Without a token nothing else of a request is looked at, so that being refused says nothing of it.
    "checks": CONFIG["checks"]
    | {name: {"enabled": False} for name in ("negative_data_rejection", "unsupported_method")},
}


def run(url: str, whose: dict[str, Any], *, last: bool) -> tuple[list[str], set[str], StopReason | None]:
    """Return what schemathesis found wrong, which operations it tried, and why it ended."""
    config = SchemathesisConfig.from_dict(CONFIG | whose)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)
    wrong: list[str] = []
    tried: set[str] = set()
    stop_reason = None
    turns_away = schema.include if last else schema.exclude
    for event in from_schema(turns_away(name=sorted(TURNS_AGENTS_AWAY))).execute():
        if isinstance(event, events.ScenarioFinished):
            tried.update(node.value.operation.label for node in event.recorder.cases.values())
            wrong += _failures(event)
        elif isinstance(event, events.NonFatalError):
            wrong.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            raise event.exception
        elif isinstance(event, events.EngineFinished):
            stop_reason = event.stop_reason
    return wrong, tried, stop_reason


def _failures(event: events.ScenarioFinished) -> list[str]:
    return [
        f"{event.recorder.label} [{check.name}]\n{check.failure_info.failure}\n{check.failure_info.code_sample}"
        for checks in event.recorder.checks.values()
        for check in checks
        if check.status is Status.FAILURE and check.failure_info is not None
    ]


# Hypothesis describes a strategy to itself, with all that schemathesis has learned: slow at worst, no answer of ours.
@pytest.mark.filterwarnings("ignore:Generating overly large repr:hypothesis.errors.HypothesisWarning")
async def test_every_request_that_the_document_allows_or_forbids_is_answered_as_it_says(
    site: Site, agent: GoAgent
) -> None:
    await site.deploy("hello")
    tried: set[str] = set()
    for last in (False, True):
        wrong, these, stop_reason = await asyncio.to_thread(run, site.url, OF_THE_TOKEN, last=last)
        assert not wrong, "\n\n".join(dict.fromkeys(wrong))
        assert stop_reason in {StopReason.COMPLETED, StopReason.MAX_TIME}
        assert last or (await site.get("/health"))["connected_agents"] == 1
        tried |= these
    operations = {f"{method.upper()} {path}" for path, item in contract().document["paths"].items() for method in item}
    assert tried == operations


@pytest.mark.filterwarnings("ignore:Generating overly large repr:hypothesis.errors.HypothesisWarning")
async def test_a_stranger_is_answered_as_the_document_says_and_changes_nothing(open_site: OpenSite) -> None:
    site = await open_site(max_failed_tokens_per_minute=1_000_000)  # else nearly all would be 429
    await site.agent()
    await site.deploy("hello")
    before = await site.stored()
    for last in (False, True):
        wrong, _, _ = await asyncio.to_thread(run, site.url, OF_A_STRANGER, last=last)
        assert not wrong, "\n\n".join(dict.fromkeys(wrong))
    assert await site.stored() == before
    assert (await site.get("/health"))["connected_agents"] == 1
