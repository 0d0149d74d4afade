"""The installer's files by themselves: a linter of shells and systemd find nothing wrong with them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.enrolling import EXIT_REFUSED
from control_plane.api.agent_file import AgentFile
from control_plane.api.routes_install import TEMPLATES, installer

SCRIPT = installer("https://cp.example.com", AgentFile(b"", "0" * 64))
UNIT = (TEMPLATES / "instadeploy-agent.service").read_text()
MAX_LINES = 300


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_wrong_with_the_script() -> None:
    command = ["shellcheck", "--shell=sh", "-"]
    checked = subprocess.run(command, input=SCRIPT, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_script_is_short_enough_to_be_read_before_it_is_run() -> None:
    assert len((TEMPLATES / "install.sh").read_text().splitlines()) <= MAX_LINES


def test_the_scripts_last_line_is_one_command_that_needs_its_end() -> None:
    assert SCRIPT.endswith('\n{ main "$@"; exit; }\n')


def test_the_unit_is_in_the_script_as_it_is() -> None:
    assert UNIT in SCRIPT


def test_the_unit_leaves_running_deploys_alone_and_does_not_repeat_what_only_people_can_mend() -> None:
    assert "\nKillMode=process\n" in UNIT
    assert f"\nRestartPreventExitStatus={EXIT_REFUSED}\n" in UNIT
    assert "\nRestart=always\n" in UNIT


def test_the_unit_may_write_where_the_script_keeps_the_agents_state() -> None:
    paths = dict(re.findall(r"^(state_dir|env_file|program_dir)=(\S+)$", SCRIPT, re.MULTILINE))
    assert f"\nReadWritePaths={paths['state_dir']} " in UNIT
    assert f"\nEnvironmentFile={paths['env_file']}\n" in UNIT
    assert f" {paths['program_dir']}/agent.pyz\n" in UNIT


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "instadeploy-agent.service"
    copy.write_text(UNIT.replace("$python", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, [line for line in checked.stderr.splitlines() if copy.name in line]) == (0, [])
