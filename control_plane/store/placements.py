"""Projects: where each one runs, and which agent should take a new one."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, func
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from control_plane.core.access import Reach
from control_plane.core.errors import ProjectNotFoundError
from control_plane.core.states import AgentStatus
from control_plane.store.models import DEPLOYMENT_IS_ACTIVE, PLACEMENT_HOLDS_NAME, Agent, Deployment, Placement
from control_plane.store.reaching import limits, within
from control_plane.store.tables import agent_table, placement_table


@dataclass(frozen=True, slots=True)
class ProjectPlace:
    """A project on one agent: its latest deployment, and the one that runs, if one does."""

    project_name: str
    agent: Agent
    latest: Deployment
    current: Deployment | None


# Made once: putting such a statement together takes longer than SQLite takes to answer it.
_PLACES = (
    select_rows(Placement)
    .where(Placement.organization_id == bindparam("organization"), Placement.project_name == bindparam("project"))
    .order_by(
        col(Placement.current_deployment_id).is_(None),
        col(Placement.released),
        col(Placement.latest_deployment_id).desc(),
    )
)
_LOAD = (
    # Agent by agent: who has few looks at no other organisation's deployments.
    select_rows(func.count())
    .select_from(Deployment)
    .where(Deployment.agent_id == Agent.id, DEPLOYMENT_IS_ACTIVE)
    .correlate(Agent)
    .scalar_subquery()
    .label("deployments")
)
_LOADS = (
    select_rows(col(Agent.id), _LOAD)
    .where(
        Agent.organization_id == bindparam("organization"),
        Agent.status == AgentStatus.ONLINE.value,
        col(Agent.cordoned).is_(False),
    )
    .order_by(_LOAD, col(Agent.id))
    .limit(bindparam("most"))
)


def find_places(db: Session, reach: Reach, project_name: str) -> Sequence[Placement]:
    """Return where a project was ever deployed: running ones first, then the latest deployed."""
    query = _PLACES.where(*limits(placement_table, reach)) if reach.is_limited else _PLACES
    return db.exec(query, params={"organization": reach.organization_id, "project": project_name}).all()


def find_name_holder(db: Session, reach: Reach, agent_id: int, folded_name: str) -> str | None:
    """Return the project that has a name, as Compose folds it, on an agent; None if none does.

    Whatever its name: Compose's names are the agent's, and not limited to the projects of a caller.
    """
    query = select_rows(Placement.project_name).where(
        Placement.organization_id == reach.organization_id,
        Placement.agent_id == agent_id,
        Placement.folded_name == folded_name,
        PLACEMENT_HOLDS_NAME,
    )
    return db.exec(query).first()


def find_places_or_agents(
    db: Session, reach: Reach, project_name: str, most_agents: int
) -> tuple[Sequence[Placement], list[tuple[int, int]]]:
    """Return a project's places as `find_places` does, and who could take it if it is nowhere or was stopped.

    Those are the `most_agents` online agents that are not cordoned, with the fewest deployments that run or are about
    to, as id and count, fewest first, then lowest id.
    """
    places = find_places(db, reach, project_name)
    if places and not places[0].released:
        return places, []
    query = _LOADS.where(*limits(agent_table, reach)) if reach.is_limited else _LOADS
    found = db.exec(query, params={"organization": reach.organization_id, "most": most_agents})
    return places, [(agent_id, count) for agent_id, count in found]


def list_projects(db: Session, reach: Reach, *, after: str | None, limit: int) -> tuple[list[ProjectPlace], bool]:
    """Return every place of the next `limit` projects by name after `after`, and whether there are more."""
    names = select_rows(Placement.project_name).where(*within(placement_table, reach)).distinct()
    names = names.order_by(col(Placement.project_name)).limit(limit + 1)
    if after is not None:
        names = names.where(col(Placement.project_name) > after)
    found = db.exec(names).all()
    return _places(db, reach, found[:limit]), len(found) > limit


def get_project(db: Session, reach: Reach, project_name: str) -> list[ProjectPlace]:
    """Return every place of a project. Raises ProjectNotFoundError."""
    places = _places(db, reach, [project_name])
    if not places:
        raise project_not_found(project_name)
    return places


def _places(db: Session, reach: Reach, project_names: Sequence[str]) -> list[ProjectPlace]:
    query = (
        select_rows(Placement, Agent, Deployment)
        .join(Agent, col(Agent.id) == col(Placement.agent_id))
        .join(Deployment, col(Deployment.id) == col(Placement.latest_deployment_id))
        .where(*within(placement_table, reach), col(Placement.project_name).in_(project_names))
        .order_by(col(Placement.project_name), col(Placement.agent_id))
    )
    found = db.exec(query).all()
    current_ids = [place.current_deployment_id for place, _, _ in found if place.current_deployment_id]
    ours = col(Deployment.organization_id) == reach.organization_id
    running = db.exec(select_rows(Deployment).where(col(Deployment.id).in_(current_ids), ours)).all()
    current = {deployment.id: deployment for deployment in running}
    return [
        ProjectPlace(place.project_name, agent, latest, current.get(place.current_deployment_id or 0))
        for place, agent, latest in found
    ]


def project_not_found(project_name: str) -> ProjectNotFoundError:
    """Return the error for a project that was never deployed."""
    return ProjectNotFoundError(
        f"No project named '{project_name}' was ever deployed; GET /projects lists those that were."
    )
