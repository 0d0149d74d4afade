#!/bin/sh
# Installs the InstaDeploy agent on this host as a systemd service, updates it, or removes it:
#
#   curl -fsSL https://deploy.example.com/install.sh | sudo sh -s -- --enroll ide_...
#
# Nothing runs before the last line has arrived, and nothing is changed before all that is needed was found.
# Running it again updates the agent and keeps its token. Needs Python 3.11, systemd and Docker, and no package.
# shellcheck disable=SC2317 # steps are called by their names
set -eu
export LC_ALL=C

# Filled in by the control plane that serves this file; the first one is empty if it does not know its address.
server='@SERVER@'
agent_sha256='@AGENT_SHA256@'

service=instadeploy-agent.service
program_dir=/opt/instadeploy-agent
program=$program_dir/agent.pyz
state_dir=/var/lib/instadeploy-agent
projects_dir=$state_dir/projects
env_file=/etc/instadeploy-agent.env
unit_file=/etc/systemd/system/$service
mark='# Made by the installer of the InstaDeploy agent.'

action=install
dry_run=no
enrollment=${AGENT_ENROLLMENT_TOKEN:-}
hostname=
missing=
work=
undo_dir=
stopped=no

usage() { cat <<END
Usage: install.sh [--server URL] [--enroll TOKEN] [--hostname NAME] [--dry-run]
       install.sh --uninstall [--dry-run]

  --server URL      the control plane, as https://HOST or http://HOST:PORT${server:+; here $server}
  --enroll TOKEN    an enrolment token that POST /agents/enroll makes (or AGENT_ENROLLMENT_TOKEN);
                    not needed again on a host that is enrolled
  --hostname NAME   the agent's name at the control plane; default: this host's
  --dry-run         check everything, say what would be done, and do nothing
  --uninstall       remove the agent; project directories and containers are kept
END
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

# step SENTENCE COMMAND...: says what is done and does it; in a dry run only says it.
step() {
    if [ "$dry_run" = yes ]; then say "Would: $1"; return; fi
    say "$1"
    shift
    "$@"
}

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --dry-run) dry_run=yes ;;
            --uninstall) action=uninstall ;;
            --help) usage; exit 0 ;;
            --*=*) fail "Write ${1%%=*} and its value with a space between them." ;;
            --server | --enroll | --hostname)
                [ $# -ge 2 ] || fail "$1 needs a value; --help lists the options."
                case $1 in
                    --server) server=${2%/} ;;
                    --enroll) enrollment=$2 ;;
                    --hostname) hostname=$2 ;;
                esac
                shift ;;
            --*) fail "There is no option $1; --help lists them." ;;
            *) fail "Each value belongs behind its option; --help lists them." ;;
        esac
        shift
    done
}

# What passes here goes into files and command lines: each value has letters that mean nothing there.
check_values() {
    case $server in
        '' | http://?* | https://?*) ;;
        *) fail "--server must be https://HOST or http://HOST:PORT." ;;
    esac
    case ${server#*://} in
        *[!]A-Za-z0-9._:[-]*) fail "--server must be https://HOST or http://HOST:PORT, without anything after it." ;;
    esac
    case $enrollment in
        *[!A-Za-z0-9_-]*) fail "--enroll holds letters that no enrolment token has: copy it again." ;;
    esac
    case $hostname in
        *[!A-Za-z0-9._-]*) fail "--hostname may hold letters, digits, '.', '_' and '-' only." ;;
    esac
}

need() { missing="$missing
  - $1"; }

enrolled() {
    for kept in "$projects_dir"/.instadeploy/tokens/*.token; do
        [ -f "$kept" ] && return 0
    done
    return 1
}

# fetch URL FILE: with Python, which the agent needs anyway: what this reaches and trusts, the agent does, too.
fetch() {
    python3 -I -c '
import sys, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=20) as answer, open(sys.argv[2], "wb") as file:
        file.write(answer.read())
except Exception as error:
    sys.exit(f"{sys.argv[1]}: {error}")
' "$1" "$2"
}

check_host() {
    [ "$(id -u)" = 0 ] || need "root: run it with sudo"
    if ! command -v systemctl >/dev/null || [ ! -d /run/systemd/system ]; then
        need "systemd: this host was not started by it; docs/agents.md tells how to run the agent by hand"
    elif [ -e "$unit_file" ] && ! grep -qF "$mark" "$unit_file"; then
        need "room for its unit: $unit_file is there already and not this installer's; remove that agent first"
    fi
    python=$(command -v python3 || true)
    if ! python3 -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        need "Python 3.11 or later as python3 (found: $(python3 -V 2>/dev/null || echo none))"
        python=
    elif ! python3 -I -c 'import asyncio, ctypes, fcntl, ssl, zlib' 2>/dev/null; then
        need "the whole standard library of Python (Debian, Ubuntu: the package python3)"
    fi
    command -v docker >/dev/null || need "Docker Engine (https://docs.docker.com/engine/install/)"
    if ! docker compose version >/dev/null 2>&1 && ! docker-compose version >/dev/null 2>&1; then
        need "Docker Compose: the package docker-compose-plugin, or docker-compose-v2"
    fi
}

check_control_plane() {
    if [ -z "$server" ]; then
        need "the control plane's address: --server https://HOST"
    elif [ -n "$python" ] && ! said=$(fetch "$server/health" /dev/null 2>&1); then
        need "a way to the control plane: ${said:-$server does not answer}"
    fi
    if [ -z "$enrollment" ] && ! enrolled; then
        need "an enrolment token: --enroll ide_..., which POST /agents/enroll makes"
    fi
}

stop_if_missing() {
    [ -n "$missing" ] || return 0
    say "The agent cannot be installed yet, and nothing was changed. What is missing:$missing" >&2
    exit 1
}

fetch_agent() {
    fetch "$server/agent.pyz" "$work/agent.pyz" || fail "The agent could not be downloaded. Nothing was changed."
    python3 -I -c '
import hashlib, sys
sys.exit(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest() != sys.argv[2])
' "$work/agent.pyz" "$agent_sha256" ||
        fail "The agent that arrived is not the one that belongs to this script: fetch the script again. Nothing was changed."
    python3 -I "$work/agent.pyz" --version >/dev/null || fail "The agent does not start on this host. Nothing was changed."
}

# Of the directories that enrolling makes, the first one that is not there yet: what a failure has to remove.
note_new_directory() {
    for undo_dir in "$state_dir" "$projects_dir" "$projects_dir/.instadeploy"; do
        [ -e "$undo_dir" ] || return 0
    done
    undo_dir=
}

stop_service() {
    systemctl is-active --quiet "$service" || return 0
    systemctl stop "$service"
    stopped=yes
}

enroll() {
    note_new_directory
    stop_service
    status=0
    SERVER_URL=$(websocket_url) PROJECTS_DIR=$projects_dir AGENT_HOSTNAME=$(agent_hostname) \
        AGENT_ENROLLMENT_TOKEN=$enrollment AGENT_SECRET_TOKEN='' \
        python3 -I "$work/agent.pyz" --enroll-only --log-level error </dev/null || status=$?
    [ "$status" = 0 ] || fail "This host was not enrolled; nothing was installed or changed."
    undo_dir=
}

websocket_url() { printf 'ws%s/ws' "${server#http}"; }

# A name that was given once stays, until another one is given.
agent_hostname() {
    if [ -n "$hostname" ] || [ ! -f "$env_file" ]; then printf '%s' "$hostname"; return; fi
    sed -n 's/^AGENT_HOSTNAME=//p' "$env_file" | tail -n 1
}

# write FILE MODE: replaces FILE by what comes on standard input, whole or not at all.
write() {
    cat >"$1.new"
    chmod "$2" "$1.new"
    mv -f "$1.new" "$1"
}

write_program() {
    mkdir -p "$program_dir"
    chmod 755 "$program_dir"
    write "$program" 644 <"$work/agent.pyz"
}

# Lines that somebody added, such as SSL_CERT_FILE, are kept.
env_lines() {
    say "SERVER_URL=$(websocket_url)"
    say "PROJECTS_DIR=$projects_dir"
    name=$(agent_hostname)
    [ -z "$name" ] || say "AGENT_HOSTNAME=$name"
    [ ! -f "$env_file" ] || grep -v -e '^SERVER_URL=' -e '^PROJECTS_DIR=' -e '^AGENT_HOSTNAME=' "$env_file" || true
}

write_env_file() {
    env_lines >"$work/env"
    write "$env_file" 600 <"$work/env"
}

write_unit() {
    write "$unit_file" 644 <<END
$mark
@UNIT@
END
}

start_service() {
    systemctl daemon-reload
    systemctl enable --quiet "$service"
    systemctl restart "$service"
    stopped=no
    systemctl --no-pager --lines=5 status "$service" </dev/null || true
    systemctl is-active --quiet "$service" || fail "The agent does not run: journalctl -u $service says why."
}

install_agent() {
    check_host
    check_control_plane
    stop_if_missing
    umask 077
    work=$(mktemp -d)
    step "Download the agent from $server/agent.pyz and check it." fetch_agent
    step "Enrol at $server; the agent's own token is kept under $projects_dir/.instadeploy." enroll
    step "Write $program, the agent." write_program
    step "Write $env_file, its settings." write_env_file
    step "Write $unit_file, its service." write_unit
    step "Enable and start $service." start_service
    [ "$dry_run" = yes ] || say "The agent is installed. Run this again to update it; --uninstall removes it."
}

remove_service() {
    systemctl disable --now --quiet "$service" || true
    rm -f "$unit_file" "$unit_file.new"
    systemctl daemon-reload
}

remove_files() {
    rm -rf "$program_dir" "$env_file" "$env_file.new" "$state_dir/buildx" "$projects_dir/.instadeploy"
    rmdir "$projects_dir" "$state_dir" 2>/dev/null || true
}

remove_agent() {
    [ "$(id -u)" = 0 ] || fail "Removing the agent needs root: run it with sudo."
    if [ -e "$unit_file" ] && grep -qF "$mark" "$unit_file"; then
        step "Stop and remove $service." remove_service
    fi
    step "Remove $program_dir, $env_file and the agent's token." remove_files
    [ "$dry_run" = no ] || return 0
    [ ! -d "$projects_dir" ] ||
        say "Kept: the project directories in $projects_dir, and their containers, which go on running."
    say "The agent is removed. The control plane still knows its token: revoke it there."
}

clean_up() {
    code=$?
    trap - EXIT
    [ -z "$work" ] || rm -rf "$work"
    if [ "$code" != 0 ]; then
        [ -z "$undo_dir" ] || rm -rf "$undo_dir"
        [ "$stopped" = no ] || systemctl start "$service" || true
    fi
    exit "$code"
}

main() {
    read_arguments "$@"
    check_values
    trap clean_up EXIT
    trap 'exit 143' INT TERM HUP
    if [ "$action" = install ]; then install_agent; else remove_agent; fi
}

# One compound command, so that a download that was cut off inside of this line does nothing either.
{ main "$@"; exit; }
