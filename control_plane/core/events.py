"""What kinds of events operators are told of. Written by the store with what they tell, shown by `GET /events`.

The values are stored and are a promise to callers: kinds may be added, none renamed or taken away.
"""

from enum import StrEnum


class EventKind(StrEnum):
    """What happened."""

    CONTROL_PLANE_STARTED = "control_plane_started"
    CONTROL_PLANE_STOPPED = "control_plane_stopped"
    SETTINGS_CHANGED = "settings_changed"
    """Between the last start of the control plane and this one."""
    AGENT_CONNECTED = "agent_connected"
    AGENT_DISCONNECTED = "agent_disconnected"
    AGENT_REPLACED = "agent_replaced"
    """An agent connected, and an earlier connection under its hostname had to go."""
    AGENT_UNRESPONSIVE = "agent_unresponsive"
    """A connected agent has left health checks unanswered."""
    AGENT_RESPONSIVE = "agent_responsive"
    """It answers again."""
    HOSTNAME_REFUSED = "hostname_refused"
    """A second agent came under the hostname of one that is connected and answers."""
    DEPLOY_ACCEPTED = "deploy_accepted"
    DEPLOY_COMPLETED = "deploy_completed"
    DEPLOY_FAILED = "deploy_failed"
    DEPLOY_CANCELED = "deploy_canceled"
    STOP_ACCEPTED = "stop_accepted"
    STOP_COMPLETED = "stop_completed"
    STOP_FAILED = "stop_failed"
    STOP_CANCELED = "stop_canceled"
