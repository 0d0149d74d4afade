# Docker for one CI run, sourced by .ci/run. An engine that answers already is used as it is and left alone;
# otherwise one is started whose data, sockets and log are all in $work, so that it meets no other engine's
# socket and nothing of it outlives the run.
# shellcheck shell=bash disable=SC2154

engine_pid=""
mounted_cgroups=""

start_engine() {
    if docker info >/dev/null 2>&1; then
        say "Docker: using the engine that already answers ($(docker version --format '{{.Server.Version}}'))"
        return
    fi
    say "Docker: starting an engine of our own"
    # A minimal machine mounts no control groups, and dockerd refuses to start without them.
    if ! awk '$3 ~ /^cgroup/ { found = 1 } END { exit !found }' /proc/mounts; then
        as_root mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mounted_cgroups=yes
    fi
    export DOCKER_HOST="unix://$work/docker.sock"
    as_root dockerd --host "$DOCKER_HOST" --data-root "$work/engine" --exec-root "$work/exec" \
        --pidfile "$work/dockerd.pid" >"$work/dockerd.log" 2>&1 &
    engine_pid=$!
    for _ in $(seq 120); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 0.5
    done
    echo "The Docker engine did not start; the end of its log:"
    tail -n 40 "$work/dockerd.log"
    return 1
}

stop_engine() {
    [ -n "$engine_pid" ] || return 0
    docker ps --all --quiet 2>/dev/null | xargs --no-run-if-empty docker rm --force >/dev/null 2>&1 || true
    docker network prune --force >/dev/null 2>&1 || true
    # By its pid file, for with sudo in between $engine_pid is sudo's.
    [ ! -s "$work/dockerd.pid" ] || as_root kill "$(cat "$work/dockerd.pid")" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort --reverse |
        while read -r mounted; do as_root umount --lazy "$mounted" || true; done
    [ -z "$mounted_cgroups" ] || as_root umount --lazy /sys/fs/cgroup
    as_root rm -rf "$work/engine" "$work/exec"
}

# The Compose that the lock file pins, as the CLI's plugin, in a configuration directory of this run's own:
# neither the user's plugins nor the user's registry logins have a say in the outcome.
link_compose() {
    export DOCKER_CONFIG="$work/docker-config"
    mkdir -p "$DOCKER_CONFIG/cli-plugins"
    ln -sfn "$PWD/.venv/bin/docker-compose" "$DOCKER_CONFIG/cli-plugins/docker-compose"
    say "Docker Compose $(docker compose version --short)"
}
