"""A judging process that some files break: what no file is known to do to the real one.

Run in its place by the tests of `control_plane.checking`. A file with `# crash` ends the process as a fault in C code
would, and one with `# hang` is never done.
"""

import os
import signal

from control_plane.checking import worker
from control_plane.core.compose import ComposeFile, read_compose


def judge(source: bytes, project_name: str) -> ComposeFile:
    if b"# crash" in source:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"# hang" in source:
        signal.pause()
    return read_compose(source, project_name)


if __name__ == "__main__":
    vars(worker)["read_compose"] = judge
    worker.main()
