"""The systemd unit and the Compose file fit the program: how long it may take to stop, and which ends are final."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from control_plane.config import Settings
from control_plane.main import EXIT_STORAGE_BROKEN
from control_plane.serve import EXIT_CONFIGURATION, EXIT_CRASH

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "docs/systemd/instadeploy.service"
MARGIN_SECONDS = 15
"""For the end of what cannot be cut short: a database that is away takes some attempts of five seconds to say so."""


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


def wanted_seconds() -> int:
    return int(Settings.model_fields["shutdown_grace_seconds"].default) + MARGIN_SECONDS


def test_systemd_waits_for_the_grace_and_a_margin_and_signals_the_program_alone() -> None:
    assert int(unit()["TimeoutStopSec"]) == wanted_seconds()
    assert unit()["KillMode"] == "mixed"


def test_systemd_starts_it_again_after_every_fault_but_bad_settings() -> None:
    service = unit()
    assert service["Restart"] == "on-failure"
    final = {int(status) for status in service["RestartPreventExitStatus"].split()}
    assert final == {EXIT_CONFIGURATION}
    assert {EXIT_STORAGE_BROKEN, EXIT_CRASH} & final == set()


def test_the_unit_keeps_its_data_where_it_says(tmp_path: Path) -> None:
    service = unit()
    assert service["Environment"] == f"DATABASE_URL=sqlite:////var/lib/{service['StateDirectory']}/control_plane.db"
    assert service["ExecStart"].removeprefix(service["WorkingDirectory"] + "/") == ".venv/bin/python run.py"
    assert (ROOT / "run.py").exists()


def test_docker_waits_as_long() -> None:
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["control-plane"]
    assert service["stop_grace_period"] == f"{wanted_seconds()}s"


def test_the_manual_names_the_same_numbers() -> None:
    manual = (ROOT / "docs/operations.md").read_text()
    assert re.search(rf"`TimeoutStopSec` \({wanted_seconds()}\)", manual)
    assert f"by {MARGIN_SECONDS} s" in manual


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    # It looks for the program, which is not installed here.
    copy.write_text(UNIT.read_text().replace("/opt/instadeploy/.venv/bin/python", sys.executable))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, [line for line in checked.stderr.splitlines() if UNIT.name in line]) == (0, [])
