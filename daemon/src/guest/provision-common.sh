# Goes before the other provision scripts. They run as root in the builder, stdin closed; the last
# line one prints is what its step shows, and exit code 77 means that there was nothing it could do.

set -eu
umask 022

fail() {
    echo "$*"
    exit 1
}

# Whether the guest can reach a package mirror. Asked once per script, since a guest may get its
# address a while after it has booted.
network_state=unknown
have_network() {
    if [ "$network_state" = unknown ]; then
        network_state=none
        if wait_for_route && apt_get update; then
            network_state=up
        fi
    fi
    [ "$network_state" = up ]
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
