"""Answers whose data is too large or too deep to be read: what stands before it counts, and reading it costs little."""

import json
import time

import pytest

from control_plane.core.protocol import MAX_DATA_CHARACTERS, BadMessageError, ResponseStatus, decode_response
from control_plane.core.skim import MAX_MEMBERS, skim

HEAD = '{"job_id": "j", "status": "COMPLETED", "logs": "a\\nb", "error": ""'
DEEP = "[" * 900 + "]" * 900
DENSE = json.dumps([[1, 2]] * 2_000_000)


def test_members_are_read_up_to_the_first_nested_one() -> None:
    text = '{"a": "x\\u00e9", "n": -1.5e3, "t": true, "z": null, "d": [1], "after": 1}'
    members, at = skim(text)
    assert members == {"a": "xé", "n": 0, "t": True, "z": None}
    assert text[at:].startswith("[1]")


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '"x"', "{", '{"a', '{"a"', '{"a":', '{"a":x}', '{"\\u0061": 1}', "{1: 2}"]
)
def test_what_is_no_object_or_broken_at_once_has_no_members(text: str) -> None:
    assert skim(text)[0] == {}


def test_only_so_many_members_are_read() -> None:
    assert len(skim("{" + ",".join(f'"k{n}": {n}' for n in range(1000)) + "}")[0]) == MAX_MEMBERS


@pytest.mark.parametrize("data", [DEEP, "[" * 100_000, DENSE], ids=["deep", "deeper", "dense"])
def test_data_that_cannot_be_read_costs_the_answer_nothing_else(data: str) -> None:
    response = decode_response(f'{HEAD}, "whole_log": true, "data": {data}}}')
    assert (response.job_id, response.status, response.logs) == ("j", ResponseStatus.COMPLETED, "a\nb")
    assert (response.whole_log, response.data) == (True, None)


@pytest.mark.parametrize("data", [DEEP, DENSE], ids=["deep", "dense"])
def test_data_that_cannot_be_read_and_hides_the_status_is_a_bad_message(data: str) -> None:
    with pytest.raises(BadMessageError, match="read"):
        decode_response(f'{{"job_id": "j", "data": {data}, "status": "COMPLETED", "logs": ""}}')


def test_large_logs_leave_small_data_readable() -> None:
    logs = "line\n" * MAX_DATA_CHARACTERS
    response = decode_response(json.dumps({"job_id": "j", "status": "FAILED", "logs": logs, "data": {"a": [1.5]}}))
    assert (response.logs, response.data) == (logs, {"a": [1.5]})


def test_a_hostile_answer_costs_less_than_an_honest_one_of_its_size() -> None:
    def seconds(text: str) -> float:
        began = time.perf_counter()
        decode_response(text)
        return time.perf_counter() - began

    honest = json.dumps({"job_id": "j", "status": "COMPLETED", "logs": "line of a log\n" * (len(DENSE) // 15)})
    hostile = f'{HEAD}, "data": {DENSE}}}'
    assert min(seconds(hostile) for _ in range(3)) < min(seconds(honest) for _ in range(3))
