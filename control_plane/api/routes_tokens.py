"""Tokens and organisations: who may use the API, and as what."""

from typing import Annotated

from fastapi import Path, Response

from control_plane.api.auth import Caller, needs, protected_router
from control_plane.api.parameters import LARGEST_ID, Cursor, Limit, Plane, number_from, one_page
from control_plane.api.problem_types import problem_responses
from control_plane.api.schemas_tokens import (
    Me,
    NewTokenOut,
    OrganizationOut,
    OrganizationPage,
    OrganizationRequest,
    RotationRequest,
    TokenOut,
    TokenPage,
    TokenRequest,
)
from control_plane.core.access import Role
from control_plane.core.errors import (
    ForbiddenError,
    NameTakenError,
    OrganizationNotFoundError,
    OverloadedError,
    StorageFullError,
    TokenNotFoundError,
)
from control_plane.operations import organizations, tokens
from control_plane.operations.tokens import MadeToken
from control_plane.store.organizations import get_organization
from control_plane.store.tokens import list_tokens

router = protected_router(tags=["Access"])
TokenInPath = Annotated[int, Path(ge=1, le=LARGEST_ID, description="A token's id.", examples=[1])]
_ANY = (ForbiddenError, OverloadedError, StorageFullError)


@router.get("/me", operation_id="get_me", summary="Say who the caller is")
async def get_me(plane: Plane, caller: Caller) -> Me:
    """Answer with the role of the caller's token and what limits it."""
    return Me(
        name=caller.name,
        token_id=caller.token_id,
        role=caller.role,
        organization=OrganizationOut.model_validate(await plane.store.read(get_organization, caller.organization_id)),
        projects=list(caller.reach.projects),
        labels=dict(caller.reach.labels),
    )


@router.get(
    "/tokens",
    operation_id="list_tokens",
    summary="List the tokens",
    openapi_extra=needs(Role.ADMIN),
    responses=problem_responses(ForbiddenError),
)
async def get_tokens(plane: Plane, caller: Caller, limit: Limit = 100, cursor: Cursor = None) -> TokenPage:
    """List the organisation's tokens and enrolments that were not revoked, newest first."""
    tokens.require_whole_reach(caller)
    rows = await plane.store.read(list_tokens, caller.reach, before_id=number_from(cursor), limit=limit + 1)
    page, next_cursor = one_page(rows, limit)
    return TokenPage(tokens=[TokenOut.model_validate(row) for row in page], next_cursor=next_cursor)


@router.post(
    "/tokens",
    operation_id="create_token",
    summary="Make a token",
    status_code=201,
    openapi_extra=needs(Role.ADMIN),
    responses=problem_responses(*_ANY, OrganizationNotFoundError),
)
async def post_token(plane: Plane, caller: Caller, request: TokenRequest) -> NewTokenOut:
    """Make a token for the API, of a role up to the caller's own. It is shown this once."""
    made = await tokens.create_token(
        plane,
        caller,
        request.name,
        request.role,
        organization_id=request.organization_id,
        projects=request.projects,
        labels=request.labels,
        expires_at=request.expires_at,
    )
    return _shown(made)


@router.post(
    "/tokens/{token_id}/rotate",
    operation_id="rotate_token",
    summary="Put a new token in the place of one",
    openapi_extra=needs(Role.ADMIN),
    responses=problem_responses(*_ANY, TokenNotFoundError),
)
async def post_rotation(
    plane: Plane, caller: Caller, token_id: TokenInPath, request: RotationRequest | None = None
) -> NewTokenOut:
    """Make the token anew, with all else as it was; the old one is good for `overlap_seconds` more."""
    overlap = (request or RotationRequest()).overlap_seconds
    return _shown(await tokens.rotate_token(plane, caller, token_id, overlap))


@router.delete(
    "/tokens/{token_id}",
    operation_id="revoke_token",
    summary="Revoke a token",
    status_code=204,
    response_class=Response,
    openapi_extra=needs(Role.ADMIN),
    responses=problem_responses(*_ANY, TokenNotFoundError),
)
async def delete_token(plane: Plane, caller: Caller, token_id: TokenInPath) -> Response:
    """End a token, or an enrolment, at once; within five seconds on every replica."""
    await tokens.revoke_token(plane, caller, token_id)
    return Response(status_code=204)


@router.get(
    "/organizations",
    operation_id="list_organizations",
    summary="List the organisations",
    openapi_extra=needs(Role.ROOT),
    responses=problem_responses(ForbiddenError),
)
async def get_organizations(
    plane: Plane, caller: Caller, limit: Limit = 100, cursor: Cursor = None
) -> OrganizationPage:
    """List all organisations, lowest id first."""
    after_id = number_from(cursor) or 0
    rows = await organizations.list_organizations(plane, caller, after_id=after_id, limit=limit + 1)
    page, next_cursor = one_page(rows, limit)
    return OrganizationPage(
        organizations=[OrganizationOut.model_validate(row) for row in page], next_cursor=next_cursor
    )


@router.post(
    "/organizations",
    operation_id="create_organization",
    summary="Make an organisation",
    status_code=201,
    openapi_extra=needs(Role.ROOT),
    responses=problem_responses(*_ANY, NameTakenError),
)
async def post_organization(plane: Plane, caller: Caller, request: OrganizationRequest) -> OrganizationOut:
    """Make an organisation; its first admin's token is made with `POST /tokens` and its `organization_id`."""
    return OrganizationOut.model_validate(await organizations.create_organization(plane, caller, request.name))


def _shown(made: MadeToken) -> NewTokenOut:
    return NewTokenOut(**TokenOut.model_validate(made.row).model_dump(), token=made.token)
