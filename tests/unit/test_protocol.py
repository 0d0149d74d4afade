"""The wire's JSON: exactly what installed agents speak, and no answer that can harm the control plane."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from control_plane.core.protocol import (
    BadMessageError,
    CommandType,
    Response,
    ResponseStatus,
    decode_response,
    encode_command,
)
from control_plane.core.wire import decode_command, encode_response

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
ODD = {
    "a lone surrogate, escaped": r'"\ud800 and \udfff"',
    "a surrogate": '"\ud800"',
    "NUL, escaped": r'"\u0000"',
    "NUL": '"\x00"',
    "not a number": "NaN",
    "minus infinity": "-Infinity",
    "a number beyond floats": "1e999",
    "a huge integer": "9" * 4000,
    "an integer too long to read": "9" * 5000,
    "deep lists": "[" * 300 + "]" * 300,
    "too deep lists": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 300 + "1" + "}" * 300,
    "unclosed lists": "[" * 100_000,
    "duplicate keys": '{"a":1,"a":2}',
    "a number": "7",
    "null": "null",
}


def answer(**values: str) -> str:
    """Return an answer's JSON text, its values given as JSON texts."""
    members = {"job_id": '"j"', "status": '"COMPLETED"', "logs": '""', **values}
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


@pytest.mark.parametrize(
    ("kind", "payload", "text"),
    [
        (
            CommandType.DEPLOY_COMPOSE,
            {"project_name": "web", "compose_file_base64": "e30="},
            '{"id":"j-1","type":"DEPLOY_COMPOSE","payload":{"project_name":"web","compose_file_base64":"e30="}}',
        ),
        (
            CommandType.STOP_COMPOSE,
            {"project_name": "web"},
            '{"id":"j-1","type":"STOP_COMPOSE","payload":{"project_name":"web"}}',
        ),
        (CommandType.STATUS, {"project_name": "web"}, '{"id":"j-1","type":"STATUS","payload":{"project_name":"web"}}'),
        (CommandType.HEALTH_CHECK, {}, '{"id":"j-1","type":"HEALTH_CHECK","payload":{}}'),
    ],
)
def test_commands_are_exactly_what_agents_expect(kind: CommandType, payload: dict[str, Any], text: str) -> None:
    assert encode_command("j-1", kind, payload) == text


@given(IDS, st.sampled_from(CommandType), st.dictionaries(TEXT, JSON, max_size=4))
def test_a_command_arrives_as_it_was_sent(job_id: str, kind: CommandType, payload: dict[str, Any]) -> None:
    text = encode_command(job_id, kind, payload)
    text.encode()
    command = decode_command(text)
    assert (command.id, command.type, command.payload) == (job_id, kind, payload)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"type":"STATUS","payload":{}}', "id"),
        ('{"id":"","type":"STATUS","payload":{}}', "id"),
        ('{"id":"j","type":"REBOOT","payload":{}}', "type"),
        ('{"id":"j","type":"STATUS"}', "payload"),
        ('{"id":1,"type":"STATUS","payload":{}}', "id"),
        ('{"id":"' + "j" * 201 + '","type":"STATUS","payload":{}}', "id"),
        ('{"id":"\\ud800","type":"STATUS","payload":{}}', "id"),
        ('{"id":"j","type":["STATUS"],"payload":{}}', "type"),
        ('{"id":"j","type":"STATUS","payload":[]}', "payload"),
        ("[]", "message"),
        ("{", "message"),
        ("[" * 100_000, "message"),
        ("9" * 5000, "message"),
    ],
)
def test_a_command_that_is_none_is_refused_naming_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(BadMessageError, match=f"^{why}: "):
        decode_command(text)


def test_commands_may_carry_more_than_an_agent_knows() -> None:
    assert decode_command('{"id":"j","type":"STATUS","payload":{"new":1},"newer":2}').payload == {"new": 1}


@given(
    st.builds(
        Response,
        job_id=IDS,
        status=st.sampled_from(ResponseStatus),
        logs=TEXT,
        error=TEXT,
        data=JSON,
        whole_log=st.sampled_from([None, True]),
    )
)
def test_an_answer_arrives_as_it_was_sent(response: Response) -> None:
    assert decode_response(encode_response(**dict(response))) == response


def test_an_answer_leaves_out_what_is_empty_and_always_says_logs() -> None:
    assert encode_response("j", ResponseStatus.IN_PROGRESS) == '{"job_id":"j","status":"IN_PROGRESS","logs":""}'
    full = encode_response("j", ResponseStatus.FAILED, logs="l", error="e", data=[], whole_log=True)
    assert json.loads(full) == {
        "job_id": "j",
        "status": "FAILED",
        "logs": "l",
        "error": "e",
        "data": [],
        "whole_log": True,
    }


def test_the_answers_of_installed_agents_are_read() -> None:
    text = '{"job_id":"j","status":"COMPLETED","logs":"ok","data":{"version":"1.0.0"},"later":"more"}'
    response = decode_response(text)
    assert (response.job_id, response.status, response.logs) == ("j", ResponseStatus.COMPLETED, "ok")
    assert (response.error, response.data, response.whole_log) == ("", {"version": "1.0.0"}, None)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("member", ["job_id", "status", "logs", "error", "data", "whole_log", "unknown"])
def test_an_odd_value_anywhere_is_read_or_refused_and_does_no_more(member: str, odd: str) -> None:
    try:
        response = decode_response(answer(**{member: odd}))
    except BadMessageError:
        return
    assert_storable(response)


@pytest.mark.parametrize("member", ["logs", "error"])
@pytest.mark.parametrize(
    ("odd", "read"),
    [
        (r'"a\ud800b"', "a\ufffdb"),
        ('"a\ud800b"', "a\ufffdb"),
        (r'"\ud83d\ude80"', "\U0001f680"),
        (r'"\u0000\u001b[31m"', "\x00\x1b[31m"),
        (r'"\u2028"', "\u2028"),
    ],
)
def test_odd_text_never_costs_a_job_its_answer(member: str, odd: str, read: str) -> None:
    response = decode_response(answer(**{member: odd}))
    assert (response.status, getattr(response, member)) == (ResponseStatus.COMPLETED, read)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("elsewhere", ['""', r'"\ud800"', '"\ud800"'])
def test_numbers_that_json_does_not_have_become_null_and_the_rest_of_data_stays(number: str, elsewhere: str) -> None:
    data = f'{{"free":{number},"list":[{number},1.5],"version":"2"}}'
    assert decode_response(answer(data=data, error=elsewhere)).data == {
        "free": None,
        "list": [None, 1.5],
        "version": "2",
    }


def test_the_last_of_duplicate_keys_counts_however_the_answer_is_read() -> None:
    for logs in ('"x"', r'"\ud800"'):
        text = answer(logs=logs)[:-1] + ',"status":"FAILED"}'
        assert decode_response(text).status is ResponseStatus.FAILED


@pytest.mark.parametrize("text", ["", " ", "\ufeff{}", "{}", "[]", "null", '"x"', "7", answer() + "x", answer()[:-1]])
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(BadMessageError):
        decode_response(text)


PIECES = ['{"job_id":"j"', ',"status":"FAILED"', ',"logs":', ',"data":', '"', "\\ud800", "\\", "{", "}", "[", "]", ":"]


@given(st.lists(st.sampled_from([*PIECES, *list(ODD.values())[:8]]) | st.text(max_size=5), max_size=12).map("".join))
@example('{"job_id":"j","status":"FAILED","logs":"\udfff\ud800"}')
def test_whatever_an_agent_sends_is_an_answer_or_a_bad_message(text: str) -> None:
    try:
        response = decode_response(text)
    except BadMessageError:
        return
    assert_storable(response)


def assert_storable(response: Response) -> None:
    """Every text is Unicode that encodes, and no number is one that JSON has not."""
    for text in (response.job_id, response.logs, response.error):
        text.encode()
    _assert_plain(response.data)


def _assert_plain(value: Any) -> None:
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            one.encode()
        elif isinstance(one, float):
            assert math.isfinite(one)
        elif isinstance(one, dict):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            todo += one
