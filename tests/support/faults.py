"""What fault tests share: random choices that can be made again, and what a machine must have for a test.

Used by `tests/faults`. Without its tools a test is skipped and says why; `REQUIRE_FAULTS=1` makes that a failure.
"""

import os
import random
import secrets
import shutil

import pytest


def chance() -> random.Random:
    """Return a source of random choices; prints its seed, and takes one from `FAULT_SEED`."""
    seed = int(os.environ.get("FAULT_SEED") or secrets.randbits(32))
    print(f"FAULT_SEED={seed}")  # noqa: T201 - pytest shows it with a failure, to repeat it
    return random.Random(seed)


def need(*tools: str, root: bool = False) -> None:
    """Return if these programs are on the PATH and, with `root`, the user is root; else skip the test, or fail it."""
    missing = [f"`{tool}`" for tool in tools if shutil.which(tool) is None]
    if root and os.geteuid() != 0:
        missing.append("root")
    if missing:
        cannot(f"needs {', '.join(missing)}")


def cannot(reason: str) -> None:
    """Skip the test, or fail it where all fault tests must run. `reason`: what this machine lacks."""
    if os.environ.get("REQUIRE_FAULTS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
