# shellcheck shell=bash
# shellcheck disable=SC2154 # the container, see checks.sh
# A pool of the packaged daemon: its agents on this machine's Incus, which the daemon reaches through
# a proxied socket, their jobs from an Azure DevOps simulator on this machine. Sourced by
# packaging/test-package, whose `name` is the container.
#
#   container: iapd ──/srv/incus-host.socket──► Incus of this machine ──► agents (guests)
#                └──── 127.0.0.1:8787 ──► azure.sock ◄── /srv/azure-sim ─────┘

readonly AGENTS=2
# As the daemon and the answers call the simulator.
readonly SIM_URL=http://127.0.0.1:8787
# Not in /run, over which the container mounts another one when it boots.
readonly INCUS_INSIDE=/srv/incus-host.socket
pool=
folder=
simulator_pid=

# start_simulator PROGRAM
start_simulator() {
    # Guests of another uid look into it.
    folder=$(mktemp -d /var/tmp/iapd-package.XXXXXX)
    chmod 755 "$folder"
    mkdir -m 755 "$folder/azure"
    (umask 077 && head -c 32 /dev/urandom | sha256sum | cut -c1-52 >"$folder/pat")
    "$1" --listen 127.0.0.1:0 --unix-socket "$folder/azure/azure.sock" --public-url "$SIM_URL" \
        --pool linux --pat-file "$folder/pat" </dev/null >"$folder/simulator.log" 2>&1 &
    simulator_pid=$!
    within 20 simulator health || die "the simulator does not answer: $(tail -n 3 "$folder/simulator.log")"
}

simulator() {
    bounded 10 curl -sf -H 'Content-Type: application/json' \
        --unix-socket "$folder/azure/azure.sock" "http://azure-sim/_sim/$1" "${@:2}"
}

device() {
    incus_cli -t 30 -q config device add "$name" "$@" --project "$PROJECT"
}

# connect_container: gives it this machine's Incus, and the simulator as Azure.
connect_container() {
    device incus proxy "listen=unix:$INCUS_INSIDE" "connect=unix:$INCUS_SOCKET" bind=instance mode=0660 \
        "gid=$(inside getent group incus-admin | cut -d: -f3)" || die "cannot proxy Incus's socket"
    device azure proxy "listen=tcp:${SIM_URL#http://}" "connect=unix:$folder/azure/azure.sock" \
        bind=instance || die "cannot proxy the simulator"
    incus_cli -q profile create "$pool" --project "$PROJECT" || die "cannot make the profile $pool"
    incus_cli -q profile device add "$pool" azure disk "source=$folder/azure" path=/srv/azure-sim \
        --project "$PROJECT" || die "cannot share the simulator's socket"
}

config_head() {
    cat <<CONFIG
metricsPort: 0
incus:
  socket: $INCUS_INSIDE
daemon:
  reconcileInterval: 2s
  reaperInterval: 2s
shutdown:
  waitForJobs: 1m
CONFIG
}

config_pool() {
    cat <<CONFIG
pools:
- name: $pool
  agentCount: $AGENTS
  agentPrefix: h
  azure:
    url: $SIM_URL/sim-org
    patFile: azure-pat
    pool: linux
    pollInterval: 1s
  incus:
    projectName: $PROJECT
    image: $RUNNER_IMAGE
    profiles: [default, $pool]
CONFIG
}

# put FILE: writes a file of the container from stdin. One that is there keeps its owner and mode.
put() {
    local file
    file=$(mktemp "$folder/put.XXXXXX")
    cat >"$file"
    incus_cli -t 30 -q file push --mode 0600 --uid 0 --gid 0 "$file" "$name/root/put" --project "$PROJECT"
    rm -f "$file"
    # shellcheck disable=SC2016 # expanded in the container
    inside sh -c 'umask 077; cat /root/put >"$1"; rm /root/put' sh "$1"
}

agents_are_idle() {
    is "$(as ops iapctl agents ls --no-headers | awk '$3 == "idle"' | wc -l)" "$AGENTS"
}

# jobs_are FILTER: it is so for each of this round's jobs.
jobs_are() {
    local jobs
    jobs=$(simulator jobs) || return 1
    jq -e --argjson skip "$jobs_before" ".[\$skip:] | length > 0 and all($1)" <<<"$jobs" >/dev/null ||
        { jq -c --argjson skip "$jobs_before" '.[$skip:][]' <<<"$jobs"; return 1; }
}

# begin_jobs WHAT: an agent's worth each. They take as long as it takes until `jobs_end`.
begin_jobs() {
    local n
    check "$1: agents are idle" within 60 agents_are_idle
    jobs_before=$(simulator jobs | jq length)
    for n in $(seq "$AGENTS"); do
        simulator jobs -d "{\"pool\": \"linux\", \"script\":
            \"n=600; until [ -e /srv/azure-sim/go-$jobs_before ]; do sleep 0.2; n=\$((n - 1)); [ \$n -gt 0 ]; done\"}" \
            >/dev/null || die "the simulator does not take job $n"
    done
    check "$1: jobs run" within 20 jobs_are '.state == "running"'
}

# jobs_end WHAT: each does what it should, and has done it once.
jobs_end() {
    check "$1: the jobs still run" jobs_are '.state == "running"'
    touch "$folder/azure/go-$jobs_before"
    check "$1: each job succeeds, having run once" within 60 jobs_are \
        '.result == "succeeded" and .runs == 1 and .requeues == 0'
}

# An operator who never stops asking, and counts the answers.
begin_client() {
    inside rm -f /tmp/enough /tmp/said /tmp/counts
    # shellcheck disable=SC2016 # expanded in the container
    inside systemd-run --quiet --collect --unit=client --uid=ops sh -c 'ok=0 lost=0
        until [ -e /tmp/enough ]; do
            if iapctl pools ls >/dev/null 2>>/tmp/said; then ok=$((ok + 1)); else lost=$((lost + 1)); fi
        done
        echo "$ok $lost" >/tmp/counts'
}

client_lost_at_most_one() {
    local ok lost
    inside touch /tmp/enough
    within 10 inside test -s /tmp/counts
    read -r ok lost <<<"$(inside cat /tmp/counts)"
    if [ "$ok" -lt 10 ] || [ "$lost" -gt 1 ]; then
        echo "$ok calls were answered, $lost lost:"
        inside sh -c 'sort /tmp/said | uniq -c'
        return 1
    fi
}

# jobs_outlive WHAT COMMAND...: jobs run while the command is carried out, and none is lost; nor is
# more than one call of an operator.
jobs_outlive() {
    local what=$1 before
    shift
    begin_jobs "$what"
    before=$(property MainPID)
    begin_client
    check "$what: done" "$@"
    check "$what: another daemon runs" within 20 is_another "$before"
    check "$what: it is ready" within 20 is_active
    jobs_end "$what"
    check "$what: a client lost one call at most" client_lost_at_most_one
}

is_active() {
    is "$(property ActiveState)" active
}

# nothing_left: of the pool, in Incus and in Azure.
nothing_left() {
    is "$(incus_cli -q list --project "$PROJECT" -f csv -c n "^$pool-" | wc -l)" 0 &&
        is "$(simulator agents | jq length)" 0
}

# The way out when something went wrong: whatever is left of the pool.
remove_pool() {
    local agent
    [ -n "$folder" ] || return 0
    incus_cli -q list --project "$PROJECT" -f csv -c n "^$pool-" | while read -r agent; do
        incus_cli -t 60 -q delete -f "$agent" --project "$PROJECT" || true
    done
    incus_cli -q profile delete "$pool" --project "$PROJECT" 2>/dev/null || true
    [ -z "$simulator_pid" ] || kill "$simulator_pid" 2>/dev/null || true
    rm -rf "$folder"
    folder=
}
