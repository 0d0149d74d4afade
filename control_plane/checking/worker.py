"""The process that judges: `python -m control_plane.checking.worker FD`, FD being its end of a socket pair.

Started by `processes` with nothing else of the server: no secrets, no database, no other descriptor. It ends
when the server's end is closed, however that came about, and not on signals that a terminal gives to both.
"""

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import time

from control_plane.checking import frames
from control_plane.core.compose import read_compose
from control_plane.core.errors import InvalidComposeFileError

MAX_MEMORY_BYTES = 2 * 1024**3
"""Of addresses; the worst file known takes under a tenth. What wants more ends this process, not the machine."""
RECEIVE_BYTES = 256 * 1024
HELD_BACK_SECONDS = 0.002
"""Verdicts are sent together, for each sending wakes the server; but not later than this."""
WARM_UP = b"services: {web: {image: web}}"


def serve(connection: socket.socket) -> None:
    """Say that all is ready, then answer requests in their order until the other end is closed."""
    waiting = bytearray()
    with contextlib.suppress(ConnectionError):  # also when the server has ended before this process was ready
        connection.sendall(frames.FINE)
        while received := connection.recv(RECEIVE_BYTES):
            waiting += received
            verdicts, since = bytearray(), time.monotonic()
            for source, project_name in frames.take_requests(waiting):
                verdicts += _judge(source, project_name)
                if time.monotonic() - since > HELD_BACK_SECONDS:
                    connection.sendall(verdicts)
                    verdicts, since = bytearray(), time.monotonic()
            connection.sendall(verdicts)


def _judge(source: bytes, project_name: str) -> bytes:
    try:
        return frames.passed(read_compose(source, project_name))
    except InvalidComposeFileError as error:
        return frames.refused(error)
    except Exception as error:
        return frames.crashed(error)


def _let_the_server_go_first() -> None:
    """Take no core away from whoever wakes this process: its share stays the same, but it waits for its turn.

    Linux runs a process that is sent something at once, where its sender runs; the event loop would be put off, with
    Python's lock in its hand, while it sends on what has come.
    """
    with contextlib.suppress(AttributeError, OSError):  # other systems; containers that forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> None:
    """Judge for the server at the other end of the descriptor that the command line names."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _let_the_server_go_first()
    read_compose(WARM_UP, "web")  # builds the schema's validator
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
