"""`make demo`: one control plane, one agent and one small project, from deploy to stop, on this machine.

Run as `python -m examples.demo` with the runtime's dependencies alone. Exits 0 only if each step did what it
says, 1 if one did not, 130 after Ctrl-C; whatever happens, nothing that it started is left behind.
"""

import http.client
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from examples.console import Console, Outcome
from examples.demo_steps import Demo, StepFailedError, StepSkippedError
from examples.engine import DockerError


def run(demo: Demo, console: Console) -> bool:
    """Do the steps; stop at the first that fails and show what the children wrote last."""
    for title, step in demo.steps():
        console.began(title)
        try:
            console.ended(Outcome.DONE, step())
        except StepSkippedError as reason:
            console.ended(Outcome.SKIPPED, str(reason))
        except (StepFailedError, DockerError, OSError, http.client.HTTPException) as error:
            console.ended(Outcome.FAILED, str(error) or type(error).__name__)
            for child in demo.children:
                console.say(f"\nThe last lines of the {child.name}:")
                console.quote(child.last_lines())
            return False
    return True


def main() -> int:
    """Run the demo and return the exit status."""
    signal.signal(signal.SIGTERM, _end)
    # Where the development tools are installed, their Compose serves a Docker that has none.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    console = Console()
    work = Path(tempfile.mkdtemp(prefix="instadeploy-demo-"))
    demo = Demo(work)
    console.say("One control plane, one agent and one small project, from deploy to stop.")
    console.say(f"The project is examples/hello, deployed as {demo.project}.\n")
    status = 1
    try:
        status = 0 if run(demo, console) else 1
    except KeyboardInterrupt:
        console.say("\nInterrupted; cleaning up.")
        status = 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            demo.clean_up()
        except DockerError as error:
            console.say(f"Not all could be removed: {error}")
            status = status or 1
        shutil.rmtree(work, ignore_errors=True)
    console.say(f"\n{_summary(status, demo)}")
    return status


def _summary(status: int, demo: Demo) -> str:
    if status == 0 and demo.no_docker:
        done = "was checked" if demo.deployed else "could not be checked"
        return f"The Compose file {done}, and no container was started: {demo.no_docker}."
    if status == 0:
        return "Every step did what it says, and nothing is left behind. Next: `make run`, and README.md."
    return "The demo did not come through; what it had started is gone." if status == 1 else "Stopped."


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
