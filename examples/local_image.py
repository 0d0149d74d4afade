"""Makes a small image from this machine's own static busybox, so that no registry need be reached.

Called by the demo and by the end-to-end tests. The image is a stand-in for the official `busybox`: the
binary as /bin/busybox, the few applets that the examples name, and an empty /tmp; it has no command.
"""

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

APPLETS = ("httpd", "mkdir", "sh", "sleep", "test", "touch", "wget")
"""What the examples' and the tests' Compose files call by name."""

DOCKER_SECONDS = 60
"""How long one call of `docker import` may take; it takes well under a second."""


class ImageError(RuntimeError):
    """The image could not be made; the text is Docker's own last line."""


def find_static_busybox() -> Path | None:
    """Return this machine's busybox if it runs without shared libraries and has all of APPLETS."""
    found = shutil.which("busybox")
    if found is None or not _is_static(Path(found)):
        return None
    listed = subprocess.run([found, "--list"], capture_output=True, text=True, check=False, timeout=10)
    return Path(found) if set(APPLETS) <= set(listed.stdout.split()) else None


def content_tag(busybox: Path) -> str:
    """Return a tag that names what the image would hold: the same busybox, the same tag."""
    digest = hashlib.sha256(busybox.read_bytes())
    digest.update(" ".join(APPLETS).encode())
    return digest.hexdigest()[:12]


def import_image(busybox: Path, name: str) -> None:
    """Give the local Docker engine an image `name` (`repository:tag`) made of `busybox`.

    Raises ImageError. An image of that name that is there already is replaced.
    """
    done = subprocess.run(
        ["docker", "import", "-", name],
        input=_root_file_system(busybox),
        capture_output=True,
        check=False,
        timeout=DOCKER_SECONDS,
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ImageError(lines[-1] if lines else f"docker import exited {done.returncode}")


def _is_static(binary: Path) -> bool:
    # A dynamic ELF file names its loader (/lib64/ld-linux-x86-64.so.2, …) right after its headers.
    with binary.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"\x7fELF") and b"/ld-" not in head and b"/ld64" not in head


def _root_file_system(busybox: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        content = busybox.read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(content), 0o755
        tar.addfile(entry, io.BytesIO(content))
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()
