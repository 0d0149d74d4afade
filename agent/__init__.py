"""The Python agent: runs on a host, dials the control plane, and runs `docker compose` for it."""

__version__ = "1.0.0"
