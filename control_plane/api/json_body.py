"""Reads a request's JSON as RFC 8259 has it; Python's own reader lets more through.

Used by `auth.TokenFirstRoute`, and so by every route that takes a body. Invariant: what a route is given can be
written again as JSON in UTF-8 and means the same to every reader: no NaN, no lone surrogate, no key twice.
"""

import json
import re
from typing import Any, NoReturn, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

Model = TypeVar("Model", bound=BaseModel)

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class BadJsonError(ValueError):
    """The text is not JSON, or not the same JSON to every reader; says why, as an end of a sentence."""


class StrictJsonRequest(Request):
    """A request whose `json()` is strict."""

    async def body(self) -> bytes:
        """Return the whole body; cached. Without Starlette's generator for bodies that come piece by piece."""
        if not hasattr(self, "_body"):
            pieces, more = [], True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                pieces.append(message.get("body", b""))
                more = message.get("more_body", False)
            self._body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._body

    async def json(self) -> Any:
        """Return the body's value; cached.

        Raises BadJsonError, json.JSONDecodeError, UnicodeDecodeError, RecursionError, and ValueError for a
        number of more digits than Python reads. FastAPI wraps them; `problems.py` unwraps them.
        """
        if not hasattr(self, "_json"):
            self._json = read_json(await self.body())
        return self._json


def says_json(headers: Headers) -> bool:
    """Whether a request's Content-Type is JSON, `application/json` or one that builds on it (RFC 6839)."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


async def read_body(request: Request, model: type[Model]) -> Model:
    """Return the request's JSON body as `model`, for the route that cannot afford FastAPI's way to it.

    Raises what FastAPI would; `problems.py` answers 415 where there is a body that does not say it is JSON.
    """
    if not says_json(request.headers) or not await request.body():
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Send a JSON object"}])
    try:
        value = await request.json()
    except json.JSONDecodeError as error:
        raise RequestValidationError([]) from error
    except (RecursionError, ValueError) as error:
        raise HTTPException(400) from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**entry, "loc": ("body", *entry["loc"])} for entry in errors]) from None


def body_document(model: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads its body with `read_body`."""
    content = {"application/json": {"schema": model.model_json_schema(ref_template="#/components/schemas/{model}")}}
    return {"requestBody": {"required": True, "content": content}}


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text in UTF-8, with or without a byte order mark. Raises as `json()` above."""
    text = body.decode("utf-8-sig")
    value = _DECODER.decode(text)
    if _SURROGATE_ESCAPE.search(text):  # pairs are how JSON escapes an emoji: only a lone one cannot be encoded
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadJsonError("it holds half of a surrogate pair; send whole characters") from None
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadJsonError("an object in it has the same name twice; send each once")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise BadJsonError(f"{name} is not a number in JSON; send a finite one")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
