"""What this host is and how it fares: the handshake's architecture and the HEALTH_CHECK's data.

`connection` and `commands` ask here. A figure that the host does not give is null, never a guess.
"""

import os
import platform
import shutil
from pathlib import Path
from typing import Any

_GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
}
"""Python's machine names to Go's GOARCH, which installed agents send; others are the same in both."""


def architecture(system: str | None = None, machine: str | None = None) -> str:
    """Return `linux-amd64` and the like, as Go names them. Arguments default to this host's."""
    system = (system or platform.system()).lower()
    machine = (machine or platform.machine()).lower()
    return f"{system}-{_GO_ARCHITECTURES.get(machine, machine)}"


def read_memory(meminfo: str) -> dict[str, int | None]:
    """Return available and total bytes from the text of /proc/meminfo (proc(5): its kB are 1,024 bytes)."""
    kib: dict[str, int] = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        figure = rest.split()
        if figure and figure[0].isdecimal():
            kib[name] = int(figure[0])
    total, available = kib.get("MemTotal"), kib.get("MemAvailable")
    return {
        "memory_available_bytes": None if available is None else available * 1024,
        "memory_total_bytes": None if total is None else total * 1024,
    }


def resources(directory: Path) -> dict[str, Any]:
    """Return the disk that holds `directory` and the host's memory, in bytes, and its load averages."""
    disk = shutil.disk_usage(directory)
    try:
        meminfo = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        meminfo = ""
    return {
        "disk_free_bytes": disk.free,
        "disk_total_bytes": disk.total,
        **read_memory(meminfo),
        "load_average": list(os.getloadavg()),
    }
