"""TokenBook: every token that is good, by its digest, in memory, so that no wrong one costs a look-up.

The edges ask it at each request and handshake. A loop reads what has changed every couple of seconds, for other
processes change tokens too; what this one changes it reads at once. Invariant: a token that was revoked, rotated
away or has expired is not found.
"""

from datetime import UTC, datetime

from control_plane.core.protocol import CloseCode
from control_plane.core.tokens import TokenKind
from control_plane.fleet.manager import ConnectionManager
from control_plane.store import tokens
from control_plane.store.store import Store
from control_plane.store.tokens import USE_NOTED, KnownToken

PAGE = 5_000


class TokenBook:
    """Reads the tokens of a store; closes the sockets of agents whose token is not good any more."""

    def __init__(self, store: Store, manager: ConnectionManager) -> None:
        self._store = store
        self._manager = manager
        self._by_digest: dict[bytes, KnownToken] = {}
        self._by_id: dict[int, KnownToken] = {}
        self._revision = 0
        self._noted: dict[int, datetime] = {}
        self._used: dict[int, datetime] = {}

    def find(self, digest: bytes, kind: TokenKind) -> KnownToken | None:
        """Return the token of this kind with this SHA-256 that is good now, and note its use; None if there is none."""
        token = self._by_digest.get(digest)
        if token is None or token.kind is not kind:
            return None
        now = datetime.now(UTC)
        if token.expires_at is not None and token.expires_at <= now:
            return None
        if digest == token.previous_digest and (token.previous_until is None or token.previous_until <= now):
            return None
        if now - self._noted.get(token.id, _NEVER) >= USE_NOTED:
            self._noted[token.id] = self._used[token.id] = now
        return token

    async def refresh(self) -> None:
        """Read what has changed, and close the sockets of agents that came with what is not good any more."""
        while True:
            changed = await self._store.read(tokens.list_changed_tokens, self._revision, PAGE)
            for token in changed:
                if token.revision <= self._revision:
                    continue  # what was read beside this and came back first says the same, or what has changed since
                self._take(token)
                if token.kind is TokenKind.AGENT and token.agent_id is not None:
                    await self._check_session(token, token.agent_id)
            if len(changed) < PAGE:
                return

    async def write_uses(self) -> None:
        """Write which tokens were used since the last time."""
        if self._used:
            used, self._used = self._used, {}
            await self._store.write(tokens.touch_tokens, used)

    def _take(self, token: KnownToken) -> None:
        self._revision = token.revision
        before = self._by_id.pop(token.id, None)
        if before is not None:
            for digest in (before.digest, before.previous_digest):
                if digest is not None:
                    self._by_digest.pop(digest, None)
        if token.revoked:
            self._noted.pop(token.id, None)
            return
        self._by_id[token.id] = self._by_digest[token.digest] = token
        if token.previous_digest is not None:
            self._by_digest[token.previous_digest] = token
        if token.last_used_at is not None:
            self._noted.setdefault(token.id, token.last_used_at)

    async def _check_session(self, token: KnownToken, agent_id: int) -> None:
        session = self._manager.find_session(agent_id)
        if session is None:
            return
        if (session.token_id == token.id) is token.revoked:
            # Its own token was revoked; or it came with another one, or the shared secret, before it got this one.
            await session.socket.close(CloseCode.POLICY_VIOLATION, "its token is not valid any more")


_NEVER = datetime.min.replace(tzinfo=UTC)
