"""`/ws`: takes an agent from its upgrade request to the end of its connection.

Refusals are HTTP answers, given before the socket is accepted. The read loop hands every answer on without
waiting for anything, for uvicorn reads nothing more of a socket, pings included, until its last frame was taken.
"""

import asyncio
from functools import partial

import structlog
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from control_plane.core.audit import AuditEntry
from control_plane.core.errors import ControlPlaneError, HostnameBoundError, HostnameTakenError, UnauthorizedError
from control_plane.core.protocol import HEADER_AGENT_TOKEN, BadMessageError, CloseCode, decode_response
from control_plane.fleet.session import AgentSession
from control_plane.operations import results
from control_plane.operations.auditing import note
from control_plane.operations.context import ControlPlane
from control_plane.ws.certificates import refuse_other_certificates
from control_plane.ws.close_codes import close_for
from control_plane.ws.failures import TOO_MANY, counted
from control_plane.ws.handshake import Newcomer, RefusedError, begin_audit, identify
from control_plane.ws.hosts import refuse_other_hosts
from control_plane.ws.socket import AgentSocket, note_refusal, oversized_start

REFUSAL_DELAY_SECONDS = 2.0
"""A flooder that dials again as soon as it is refused would flood with handshakes; Go agents wait 10 s for one."""

log = structlog.get_logger()


async def serve_agent(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one agent's connection; an ASGI app."""
    await _serve(WebSocket(scope, receive, send))


async def _serve(websocket: WebSocket) -> None:
    plane: ControlPlane = websocket.app.state.control_plane
    try:
        session, has_work = await _admit_audited(websocket, plane)
    except RefusedError as error:
        refused = counted(websocket, error)
        if refused.code != TOO_MANY:  # told once, as `address_limited`: who guesses must not fill the log
            log.warning("agent_refused", status=refused.status, code=refused.code, address=_address(websocket))
        plane.metrics.agent_refused(refused.code)
        await _refuse(websocket, refused)
        return
    except WebSocketDisconnect:
        return
    plane.metrics.agent_connects.inc()
    plane.dispatcher.attach(session, has_work=has_work)
    code = CloseCode.INTERNAL_ERROR.value
    try:
        code = await _read(websocket, session, plane)
    finally:
        plane.metrics.agent_disconnected(code)
        plane.dispatcher.detach(session)
        try:
            await plane.manager.disconnect(session)
        except (ControlPlaneError, asyncio.CancelledError):
            # A store that is away must not make a clean end look like a crash: the next start marks all offline.
            if not plane.closing:
                raise


async def _admit_audited(websocket: WebSocket, plane: ControlPlane) -> tuple[AgentSession, bool]:
    """Admit an agent; one that enrols leaves an entry in the audit, be it refused."""
    refuse_other_hosts(websocket)
    if plane.closing:
        raise RefusedError(503, "draining", "This control plane is shutting down; connect again in a moment.")
    entry = begin_audit(websocket.headers, _address(websocket), plane.token_book)
    try:
        return await _admit(websocket, plane, entry)
    except RefusedError as refused:
        if entry is not None:
            await note(plane, entry, refused.code)
        raise


async def _admit(websocket: WebSocket, plane: ControlPlane, entry: AuditEntry | None) -> tuple[AgentSession, bool]:
    address = _address(websocket)
    state = websocket.app.state
    newcomer = identify(websocket.headers, address, state.agent_token, plane.token_book, state.allowed_origins)
    identity = newcomer.identity
    refuse_other_certificates(websocket, identity.hostname)
    if seconds := plane.cooldowns.left(identity.place):
        await asyncio.sleep(REFUSAL_DELAY_SECONDS)
        raise RefusedError(
            429,
            "flooding",
            f"This agent was disconnected for sending more than {results.MAX_MESSAGES_PER_SECOND} messages a second; "
            f"it may connect again in {seconds} s.",
            seconds,
        )
    try:
        accept = partial(_accept, websocket, plane, newcomer)
        return await plane.manager.connect(identity, AgentSocket(websocket), accept, entry)
    except HostnameTakenError as taken:
        raise RefusedError(409, taken.code, taken.detail) from taken
    except HostnameBoundError as bound:
        raise RefusedError(403, bound.code, bound.detail) from bound
    except UnauthorizedError as unauthorized:
        raise RefusedError(401, unauthorized.code, unauthorized.detail) from unauthorized
    except ControlPlaneError as error:
        raise RefusedError(503, error.code, error.detail) from error


async def _accept(websocket: WebSocket, plane: ControlPlane, newcomer: Newcomer) -> None:
    """Accept, and give an agent that enrols its token: it is stored by now, and binds the hostname."""
    given = newcomer.new_token
    if given is not None:
        await plane.token_book.refresh()  # so that it is known however soon the agent comes with it
    await websocket.accept(headers=[] if given is None else [(HEADER_AGENT_TOKEN.encode(), given.encode())])


async def _refuse(websocket: WebSocket, refused: RefusedError) -> None:
    headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}
    if refused.retry_after_seconds:
        headers["Retry-After"] = str(refused.retry_after_seconds)
    problem = {
        "type": "about:blank",
        "title": refused.code.replace("_", " ").capitalize(),
        "status": refused.status,
        "detail": refused.detail,
        "code": refused.code,
    }
    answer = JSONResponse(problem, refused.status, headers, media_type="application/problem+json")
    await websocket.send_denial_response(answer)
    note_refusal(websocket)


async def _read(websocket: WebSocket, session: AgentSession, plane: ControlPlane) -> int:
    """Hand on what the agent says until its socket ends; return the close code."""
    AgentSocket(websocket).listen(partial(_hear, session, plane), partial(results.admit_message, session))
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            ended = int(message.get("code", 1005))
            log.debug("socket_ended", agent_id=session.agent_id, code=ended)
            if ended == CloseCode.TOO_BIG:
                results.lose_oversized(plane, session, oversized_start(websocket))
            return ended
        try:
            _take(message, session, plane)
        except Exception as error:
            code, reason = close_for(error)
            if code is CloseCode.POLICY_VIOLATION:
                plane.cooldowns.start(session.identity.place)
            log.warning("agent_closed", agent_id=session.agent_id, code=code.value, reason=reason)
            await session.socket.close(code, reason)
            return code.value


def _take(message: Message, session: AgentSession, plane: ControlPlane) -> None:
    """Take what did not go straight to `_hear`: early messages, binary ones, and what went wrong there."""
    if "fault" in message:
        raise message["fault"]
    if message.get("text") is None:
        raise UnicodeError("binary frame")
    _hear(session, plane, message["text"])


def _hear(session: AgentSession, plane: ControlPlane, text: str) -> None:
    """Take one message of an agent; never waits. Raises what must end the connection."""
    results.admit_message(session)
    try:
        results.receive(plane, session, decode_response(text))
    except BadMessageError as error:
        plane.metrics.bad_messages.inc()
        log.warning("bad_message", agent_id=session.agent_id, error=str(error)[:200])


def _address(websocket: WebSocket) -> str:
    return websocket.client.host if websocket.client else ""
