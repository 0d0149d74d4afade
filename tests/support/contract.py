"""Holds every answer to what the OpenAPI document declares for its route: status, media type and schema.

`tests.support.app` hooks it into its client, so no test of the API can meet an answer that users are not told of.
"""

import functools
import re
from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator

Operation = dict[str, Any]

PROBLEM = "application/problem+json"
_OUTSIDE_OF_ROUTES = {"route_not_found", "method_not_allowed"}
"""Codes of answers that belong to no operation of the document."""


class Contract:
    """The OpenAPI document of an app, and the check of answers against it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._paths = [
            (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))), template)
            for template in sorted(document["paths"], key=lambda path: "{" in path)
        ]

    def operation(self, method: str, path: str) -> Operation | None:
        """Return the operation that a request is for, None if the document has none."""
        for pattern, template in self._paths:
            if pattern.fullmatch(path):
                found: Operation | None = self.document["paths"][template].get(method.lower())
                return found
        return None

    async def check(self, response: httpx.Response) -> None:
        """Fail unless the document declares this answer. To be used as a response hook of a client."""
        await response.aread()
        request = response.request
        told = f"{request.method} {request.url.raw_path.decode()} -> {response.status_code} {response.text[:500]}"
        assert response.headers["x-request-id"], told
        if not request.url.path.startswith(("/docs", "/static", "/openapi.json")):
            self._check(self.operation(request.method, request.url.path), response, told)

    def _check(self, operation: Operation | None, response: httpx.Response, told: str) -> None:
        media_type = response.headers.get("content-type", "").partition(";")[0]
        code = response.json()["code"] if media_type == PROBLEM else None
        if operation is None or code in _OUTSIDE_OF_ROUTES:
            assert code in _OUTSIDE_OF_ROUTES, f"not in the document: {told}"
            return
        declared = operation["responses"].get(str(response.status_code))
        assert declared is not None, f"the document does not declare this status: {told}"
        if "content" not in declared:
            assert (media_type, response.content) == ("", b""), f"the document declares no content: {told}"
            return
        assert media_type in declared["content"], f"the document declares {set(declared['content'])}: {told}"
        content = declared["content"][media_type]
        if media_type in {PROBLEM, "application/json"}:
            self.validator(content["schema"]["$ref"]).validate(response.json())
        if code is not None:
            assert code in declared_codes(content), f"the document has no example of this code: {told}"
        if response.status_code in {429, 503, 507}:
            assert int(response.headers["retry-after"]) > 0, told

    def validator(self, reference: str) -> Draft202012Validator:
        """Return the validator of a schema of the document, by its `$ref`."""
        return _validator(self, reference)


@functools.lru_cache(maxsize=200)
def _validator(contract: Contract, reference: str) -> Draft202012Validator:
    schema = {"$ref": reference, "components": contract.document["components"]}
    return Draft202012Validator(schema, validate_formats=True)


def declared_codes(content: dict[str, Any]) -> set[str]:
    """Return the codes of which a declared problem shows an example."""
    examples = [content["example"]] if "example" in content else [e["value"] for e in content["examples"].values()]
    return {example["code"] for example in examples}
