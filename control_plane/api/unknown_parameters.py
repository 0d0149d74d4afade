"""Refuses a query parameter that a route does not take, as bodies are refused with a field that they do not have.

`?wiat=300` would else be answered at once, and a CI job take an accepted deploy for one that is over.
"""

import difflib
from collections.abc import Collection

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes
from starlette.requests import Request

from control_plane.api.problems import MAX_FIELDS, MAX_NAME_CHARACTERS
from control_plane.core.errors import FieldProblem, InvalidInputError


def query_names(dependant: Dependant) -> frozenset[str]:
    """Return the names of the query parameters that a route takes, those of its dependencies included."""
    return frozenset(
        field.alias
        for field in get_flat_params(dependant)
        if getattr(field.field_info, "in_", None) is ParamTypes.query
    )


def refuse_unknown(request: Request, known: Collection[str]) -> None:
    """Return when every query parameter of a request is one of the `known`. Raises InvalidInputError."""
    unknown = [name for name in request.query_params if name not in known]
    if not unknown:
        return
    problems = [FieldProblem(name[:MAX_NAME_CHARACTERS], _reason(name, known)) for name in unknown[:MAX_FIELDS]]
    raise InvalidInputError(f"{problems[0].field}: {problems[0].reason}.", problems)


def _reason(name: str, known: Collection[str]) -> str:
    if not known:
        return "is not a parameter of this route, which takes none in its query"
    close = difflib.get_close_matches(name[:MAX_NAME_CHARACTERS].lower(), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(sorted(known))}"
    return f"is not a parameter of this route; {hint}"
