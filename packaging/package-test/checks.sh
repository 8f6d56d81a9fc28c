# shellcheck shell=bash
# Checks in a system container, each said when it holds; the first that does not ends the run.
# Sourced by packaging/test-package.

# The container.
name=
checks=0

# inside COMMAND...: as root in the container. A shell line goes through `sh -c`.
inside() {
    incus_cli -t 120 -q exec "$name" --project "$PROJECT" -- "$@"
}

as() {
    local user=$1
    shift
    inside runuser -u "$user" -- "$@"
}

passed() {
    checks=$((checks + 1))
    say "ok: $1"
}

# failed WHAT OUTPUT: ends the run with what is known.
failed() {
    printf '%s\n' "$2" >&2
    inside journalctl --no-pager -u iapd -n 40 >&2 || true
    die "$1"
}

# check WHAT COMMAND...: it succeeds.
check() {
    local what=$1 output
    shift
    output=$("$@" 2>&1) || failed "$what" "$output"
    passed "$what"
}

# check_exit CODE WORDS WHAT COMMAND...: it ends with that code and says those words.
check_exit() {
    local code=$1 words=$2 what=$3 rc=0 output
    shift 3
    output=$("$@" 2>&1) || rc=$?
    if [ "$rc" != "$code" ] || ! grep -qi -- "$words" <<<"$output"; then
        failed "$what" "exit $rc: $output"
    fi
    passed "$what"
}

# within SECONDS COMMAND...: it succeeds by then.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || {
            "$@"
            return
        }
        sleep 0.3
    done
}

is() {
    [ "$1" = "$2" ] || { echo "is '$1', should be '$2'"; return 1; }
}

# prints WORDS COMMAND...: that is its output, in one line.
prints() {
    local words=$1
    shift
    within 5 prints_now "$words" "$@"
}

prints_now() {
    local words=$1 output
    shift
    output=$("$@") || true
    is "$(tr '\n' ' ' <<<"$output" | sed 's/ *$//')" "$words"
}

# output COMMAND...: in the container, of one that has some. Incus's client was seen to lose the
# output of a short command, so that more than one look is taken.
output() {
    local said
    for _ in 1 2 3; do
        said=$(inside "$@") || true
        [ -z "$said" ] || break
    done
    echo "$said"
}

# property NAME: of the daemon's unit, as systemd tells it.
property() {
    output systemctl show -P "$1" iapd
}

# is_another PID: a daemon runs, and it is not this one.
is_another() {
    local now
    now=$(property MainPID) || return 1
    case $now in '' | 0 | "$1") echo "runs as '$now'"; return 1 ;; esac
}

is_booted() {
    case $(inside systemctl is-system-running 2>/dev/null) in
    running | degraded) ;;
    *) return 1 ;;
    esac
}

# logs ARGUMENT...: the daemon's log, as journalctl selects it.
logs() {
    inside journalctl --no-pager -u iapd "$@"
}

# says WORDS COMMAND...: its output has them.
says() {
    local words=$1
    shift
    # What is told may come a moment later, and the output of a short command may be lost.
    within 5 says_now "$words" "$@"
}

says_now() {
    local words=$1 output
    shift
    output=$("$@" 2>&1) || true
    grep -qi -- "$words" <<<"$output" || { echo "$output"; return 1; }
}
