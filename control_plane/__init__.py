"""InstaDeploy's control plane: a fleet of agents over WebSockets, Compose deploys by REST."""

__version__ = "0.1.0"
