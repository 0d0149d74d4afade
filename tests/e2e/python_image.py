"""A base image for the Dockerfile made of this machine's own Python, for where no registry can be reached.

Holds the interpreter, its standard library and pip, the shared libraries that they need, a busybox for the
Dockerfile's `RUN` lines, and the wheels of requirements.txt as the only place that pip looks in.
"""

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pip

from examples.local_image import find_static_busybox

ROOT = Path(__file__).parents[2]
UNNEEDED = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "lib2to3"}
UNNEEDED_LIBRARIES = {"_tkinter"}
WHEELS_NEED = ("libstdc++.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1")
"""What manylinux wheels may expect of the system beyond what Python itself needs (PEP 600)."""


def import_python_image(name: str, wheels: Path) -> None:
    """Give the engine an image `name` as described above. Downloads wheels through pip's own cache into `wheels`."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"]
    download += ["--only-binary", ":all:", "--dest", str(wheels), "-r", str(ROOT / "requirements.txt")]
    done = subprocess.run(download, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    path = f"PATH={_binary().parent}:/usr/bin:/bin"
    command = ["docker", "import", "--change", f"ENV {path}", "-", name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    with process.stdin, tarfile.open(fileobj=process.stdin, mode="w|") as tar:
        _fill(tar, wheels)
    assert process.wait() == 0


def _binary() -> Path:
    return Path(sys.executable).resolve()


def _fill(tar: tarfile.TarFile, wheels: Path) -> None:
    busybox = find_static_busybox()
    assert busybox is not None
    tar.add(busybox, "bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in set(applets) - {"busybox"}:
        _link(tar, f"bin/{applet}", "busybox")
    directory = tarfile.TarInfo("tmp")
    directory.type, directory.mode = tarfile.DIRTYPE, 0o1777
    tar.addfile(directory)
    _text(tar, "etc/pip.conf", "[global]\nno-index = true\nfind-links = /wheels\n")
    tar.add(wheels, "wheels")

    binary, standard_library = _binary(), Path(sysconfig.get_path("stdlib"))
    tar.add(binary, str(binary).lstrip("/"))
    _link(tar, str(binary.parent / "python3").lstrip("/"), binary.name)
    tar.add(standard_library, str(standard_library).lstrip("/"), filter=_needed)
    # In the standard library itself, where every Python looks, also one whose site-packages is elsewhere.
    tar.add(Path(pip.__file__).parent, str(standard_library / "pip").lstrip("/"))
    for library in _shared_libraries(binary, standard_library):
        tar.add(library.resolve(), str(library).lstrip("/"))


def _needed(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = Path(entry.name)
    unneeded = path.name in UNNEEDED or path.name.startswith("config-") or path.suffix == ".a"
    return None if unneeded or path.name.split(".")[0] in UNNEEDED_LIBRARIES else entry


def _shared_libraries(binary: Path, standard_library: Path) -> Iterator[Path]:
    extensions = [path for path in standard_library.glob("lib-dynload/*.so") if "_tkinter" not in path.name]
    needed = subprocess.run(["ldd", binary, *extensions], capture_output=True, text=True, check=True).stdout
    found = {Path(path) for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", needed, re.MULTILINE)}
    libc = next(path for path in found if path.name.startswith("libc.so"))
    found |= {path for each in WHEELS_NEED if (path := libc.parent / each).exists()}
    yield from sorted(found)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _text(tar: tarfile.TarFile, name: str, content: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content.encode()))
