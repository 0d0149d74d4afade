"""Who may do what: roles, how far a token reaches, and the Actor that every operation is called for.

The edges make one Actor a request; operations ask it before they act, and the store's queries take its Reach.
Invariant: a Reach is of exactly one organisation, so that nothing can be read or changed across two.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256

from control_plane.core.audit import AuditEntry
from control_plane.core.errors import ForbiddenError

DEFAULT_ORGANIZATION_ID = 1
"""The organisation that a fresh database has, named `default`."""
MAX_PATTERNS = 50
MAX_LABELS = 50

_PATTERN = re.compile(r"[A-Za-z0-9_*?-]{1,63}")
_LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")


class Role(StrEnum):
    """What a token may do; each may all that those before it may."""

    VIEWER = "viewer"
    """Reads."""
    DEPLOYER = "deployer"
    """Deploys, stops, cancels."""
    OPERATOR = "operator"
    """Agents: health checks, labels, enrolment, their tokens."""
    ADMIN = "admin"
    """The organisation's tokens and its audit."""
    ROOT = "root"
    """Organisations; for the whole control plane."""

    def may(self, needed: "Role") -> bool:
        """Whether this role is `needed` or more."""
        return _RANKS[self] >= _RANKS[needed]


_RANKS = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Reach:
    """What of the records a caller can see: one organisation, and of that only some when patterns or labels say so."""

    organization_id: int
    projects: tuple[str, ...] = ()
    """Patterns with `*` and `?`, of which a project's name must match one, in any case; empty: all projects."""
    labels: tuple[tuple[str, str], ...] = ()
    """Keys and values that an agent must all have; empty: all agents."""

    @property
    def is_limited(self) -> bool:
        """Whether it reaches less than the whole organisation."""
        return bool(self.projects or self.labels)

    @property
    def mark(self) -> str:
        """What tells this reach from others of its organisation, in a few characters; empty for all of it."""
        if not self.is_limited:
            return ""
        return sha256(repr((sorted(self.projects), sorted(self.labels))).encode()).hexdigest()

    def within_organization(self, organization_id: int) -> "Reach":
        """Return the reach that is the same within another organisation, for root."""
        return Reach(organization_id, self.projects, self.labels)

    def has_project(self, name: str) -> bool:
        """Whether a project of this name is within reach."""
        return not self.projects or any(fnmatchcase(name.lower(), pattern.lower()) for pattern in self.projects)


DEFAULT_REACH = Reach(DEFAULT_ORGANIZATION_ID)


@dataclass(slots=True)
class Actor:
    """Who asks, from where: one request of one token."""

    name: str
    role: Role
    reach: Reach
    token_id: int | None = None
    """None for the token that the control plane was started with."""
    address: str = ""
    request_id: str = ""
    audit: AuditEntry | None = None
    """Of a request that is to change something; given to the write that does."""

    def begin(self, action: str) -> AuditEntry:
        """Begin the audit of a request that is to change something."""
        self.audit = AuditEntry(
            self.reach.organization_id,
            self.token_id,
            self.name,
            self.role.value,
            self.address,
            self.request_id,
            action,
        )
        return self.audit

    def concerns(self, what: str, job_id: str | None = None) -> AuditEntry | None:
        """Say what the request is about, such as `project shop on agent 3`; returns its entry for the write."""
        if self.audit is not None:
            self.audit.concern(what)
            self.audit.job_id = job_id
        return self.audit

    @property
    def organization_id(self) -> int:
        """The organisation that it belongs to and acts in."""
        return self.reach.organization_id

    def require(self, needed: Role) -> None:
        """Return if the actor has at least this role. Raises ForbiddenError."""
        if not self.role.may(needed):
            raise ForbiddenError(
                f"The token '{self.name}' has the role {self.role.value}, and this needs {needed.value}: "
                "use another token, or ask an admin of your organisation for one (POST /tokens)."
            )

    def require_project(self, name: str) -> None:
        """Return if the actor may change the project. Raises ForbiddenError."""
        if not self.reach.has_project(name):
            raise ForbiddenError(
                f"The token '{self.name}' is limited to the projects {', '.join(self.reach.projects)}, and '{name}' "
                "is none of them: use another token, or ask an admin of your organisation for one (POST /tokens)."
            )

    def require_every_project(self) -> None:
        """Return unless the actor is limited to some projects: agents are changed for all of theirs. ForbiddenError."""
        if self.reach.projects:
            raise ForbiddenError(
                f"The token '{self.name}' is limited to the projects {', '.join(self.reach.projects)}, and this would "
                "change an agent for all projects: use a token that is not limited to projects."
            )


def is_project_pattern(text: str) -> bool:
    """Whether it is a project's name in which `*` and `?` may stand for any characters and for one."""
    return _PATTERN.fullmatch(text) is not None


def is_label_part(text: str) -> bool:
    """Whether it can be a label's key or value: 1 to 63 of `A-Z a-z 0-9 . _ / -`, a letter or digit at each end."""
    return _LABEL_PART.fullmatch(text) is not None
