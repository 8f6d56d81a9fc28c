# Goes before the other provision scripts. They run as root in the builder, stdin closed; the last
# line one prints is what its step shows, and exit code 77 means that there was nothing it could do.

set -eu
umask 022

fail() {
    echo "$*"
    exit 1
}

# What the guest can reach: `none` without a route, `up` when the package mirrors answer, `broken` with
# a route but no mirrors. Only the first is a choice somebody may have made; an image that lacks
# something because a mirror was down must not look like one that was meant so. Looked at once per
# script, since a guest may get its address a while after it has booted.
network_state=unknown
# Seconds. Names resolve, mirrors answer and other users of apt's lists finish within it; apt's own
# DPkg::Lock::Timeout does not cover the lock of the lists.
mirror_patience=120

# Whether packages can be installed. Does not return when they should and cannot.
have_network() {
    if [ "$network_state" = unknown ]; then
        look_at_network
    fi
    [ "$network_state" != broken ] || fail "the package mirrors cannot be reached: $network_problem"
    [ "$network_state" = up ]
}

look_at_network() {
    if ! wait_for_route; then
        network_state=none
        return
    fi
    give_up=$(($(date +%s) + mirror_patience))
    while true; do
        if said=$(apt_get update 2>&1); then
            printf '%s\n' "$said"
            network_state=up
            return
        fi
        printf '%s\n' "$said"
        [ "$(date +%s)" -lt "$give_up" ] || break
        sleep 5
    done
    network_state=broken
    # The first error names the mirror and what is wrong with it, the last ones only sum up.
    network_problem=$(printf '%s\n' "$said" | sed -n 's/^E: //p' | head -n 1)
    network_problem=${network_problem:-apt-get update failed}
}

wait_for_route() {
    # No interface but lo, so no route will ever come.
    interfaces=$(ls /sys/class/net)
    [ "$interfaces" != lo ] || return 1
    tries=0
    while [ "$tries" -lt 60 ]; do
        # A default route: destination 0 over IPv4, ::/0 over IPv6 on anything but lo.
        if awk '$2 == "00000000" && $1 != "lo" { found = 1 } END { exit !found }' /proc/net/route ||
            awk '$1 == "00000000000000000000000000000000" && $2 == "00" && $10 != "lo" { found = 1 } END { exit !found }' /proc/net/ipv6_route 2>/dev/null; then
            return 0
        fi
        tries=$((tries + 1))
        sleep 0.5
    done
    return 1
}

apt_get() {
    # A machine that has just booted may be updating itself: wait for it, but not for ever.
    apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 \
        -o APT::Update::Error-Mode=any \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        -o Dpkg::Use-Pty=0 "$@" </dev/null
}

apt_install() {
    apt_get install --no-install-recommends "$@"
}
