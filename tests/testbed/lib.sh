# shellcheck shell=bash
# Brings Incus up on a bare Debian or Ubuntu machine, with or without systemd. Sourced by the test
# bed's scripts and by packaging/quickstart; it only defines functions and runs nothing.
#
# Every function is idempotent and looks before it acts. What the machine had before is recorded in
# IAPD_STATE_DIR, so that whatever was changed can be put back and nothing else is touched.

# /run, since pids and kernel limits do not outlive a boot either.
: "${IAPD_STATE_DIR:=/run/iapd-testbed}"
# Written to `user.iapd.owner` of the pools and projects made here; only those are removed again.
: "${IAPD_OWNER:=iapd-testbed}"
: "${INCUS_DIR:=/var/lib/incus}"
: "${IAPD_LOG_DIR:=/var/log/incus}"

INCUS_SOCKET=$INCUS_DIR/unix.socket
# A client configuration of our own: a default remote or project of the caller must not redirect us.
INCUS_CONF=$IAPD_STATE_DIR/client
export INCUS_DIR INCUS_SOCKET INCUS_CONF
unset INCUS_PROJECT INCUS_REMOTE

# Seconds for calls that Incus answers at once. Longer ones state their own limit.
readonly CALL_LIMIT=10
readonly BACKPORTS_LIST=/etc/apt/sources.list.d/iapd-backports.list
# `btrfs quota enable --simple` came with this version.
readonly BTRFS_PROGS_MIN=6.7

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "error: $*"
    exit 1
}

require_root() {
    [ "$(id -u)" = 0 ] || die "must run as root"
}

has_systemd() {
    [ -d /run/systemd/system ]
}

# with_lock COMMAND...: one script at a time changes the machine.
with_lock() {
    mkdir -p "$IAPD_STATE_DIR"
    exec 9>"$IAPD_STATE_DIR/lock"
    if ! flock -n 9; then
        say "waiting for another run to finish"
        flock -w 600 9 || die "another run still holds $IAPD_STATE_DIR/lock"
    fi
    "$@"
}

# bounded SECONDS COMMAND...: a fresh connection to Incus is sometimes not accepted until the next
# one arrives, so a call that runs into its limit is made once more. The first may still be carried
# out late: callers that create something must accept that it exists already.
bounded() {
    local limit=$1 rc=0
    shift
    timeout -k 5 "$limit" "$@" </dev/null || rc=$?
    case $rc in
    124 | 137)
        say "no answer within $limit s, trying once more: ${*:1:4}"
        rc=0
        timeout -k 5 "$limit" "$@" </dev/null || rc=$?
        ;;
    esac
    return "$rc"
}

# incus_cli [-t SECONDS] ARGUMENTS...: the incus client, bounded.
incus_cli() {
    local limit=$CALL_LIMIT
    if [ "$1" = -t ]; then
        limit=$2
        shift 2
    fi
    # Without a configuration file the client greets its new user.
    if [ ! -e "$INCUS_CONF/config.yml" ]; then
        mkdir -p "$INCUS_CONF"
        echo 'default-remote: local' >"$INCUS_CONF/config.yml"
    fi
    bounded "$limit" incus "$@"
}

# api_get PATH: prints the metadata of a GET; fails when Incus answers with an error.
api_get() {
    bounded "$CALL_LIMIT" curl -sf --unix-socket "$INCUS_SOCKET" "http://incus$1" | jq -c .metadata
}

# api_exists PATH: true on 200, false on 404, and the end of the script on anything else: no answer
# is not the same as "is not there".
api_exists() {
    local code
    code=$(bounded "$CALL_LIMIT" curl -s -o /dev/null -w '%{http_code}' \
        --unix-socket "$INCUS_SOCKET" "http://incus$1") || die "Incus does not answer on $INCUS_SOCKET"
    case $code in
    200) return 0 ;;
    404) return 1 ;;
    *) die "GET $1 answered $code" ;;
    esac
}

# is_ours PATH: true for a pool or project that carries our owner mark.
is_ours() {
    [ "$(api_get "$1" | jq -r '.config["user.iapd.owner"] // ""')" = "$IAPD_OWNER" ]
}

incus_running() {
    [ -S "$INCUS_SOCKET" ] &&
        bounded "$CALL_LIMIT" curl -sf -o /dev/null --unix-socket "$INCUS_SOCKET" http://incus/1.0
}

package_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -qq "$@" >/dev/null
}

# Debian's package, then Zabbly's.
incusd_path() {
    PATH=$PATH:/usr/libexec/incus:/opt/incus/bin command -v incusd
}

simple_quotas_supported() {
    dpkg --compare-versions \
        "$(dpkg-query -W -f '${Version}' btrfs-progs 2>/dev/null || echo 0)" ge "$BTRFS_PROGS_MIN"
}

add_backports() {
    local line='deb http://deb.debian.org/debian bookworm-backports main'
    grep -rqsE '^[^#]*bookworm-backports' /etc/apt/sources.list /etc/apt/sources.list.d/ && return
    say "adding $BACKPORTS_LIST"
    echo "$line" >"$BACKPORTS_LIST"
}

# install_incus [PACKAGE...]: installs Incus (containers only), what it needs and the packages named,
# as far as they are missing.
install_incus() {
    local suite=() newer=() missing=() package codename
    # gpg: mmdebstrap wants it to trust the keys of another distribution.
    for package in lxcfs dnsmasq-base iproute2 uidmap squashfs-tools jq curl procps gpg "$@"; do
        package_installed "$package" || missing+=("$package")
    done
    incusd_path >/dev/null || newer+=(incus-base)
    simple_quotas_supported || newer+=(btrfs-progs)

    # Ubuntu 24.04 has no btrfs-progs with simple quotas: asking again at every run would not help.
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    if [ "$codename" != bookworm ] && package_installed btrfs-progs; then
        newer=("${newer[@]/btrfs-progs/}")
    fi
    mapfile -t newer < <(printf '%s\n' "${newer[@]}" | sed '/^$/d')
    [ $((${#newer[@]} + ${#missing[@]})) = 0 ] && return

    require_root
    say "installing: ${newer[*]} ${missing[*]}"
    if [ "$codename" = bookworm ] && [ ${#newer[@]} -gt 0 ]; then
        add_backports
        suite=(-t bookworm-backports)
    fi
    apt_get update || die "apt-get update failed"
    if [ ${#newer[@]} -gt 0 ]; then
        apt_get install -y --no-install-recommends "${suite[@]}" "${newer[@]}" ||
            die "cannot install ${newer[*]}"
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        apt_get install -y --no-install-recommends "${missing[@]}" ||
            die "cannot install ${missing[*]}"
    fi
    simple_quotas_supported ||
        say "btrfs-progs is older than $BTRFS_PROGS_MIN: pools will run without quotas"
}

# process_start PID: the start time, which tells a process from a later one with the same pid. Prints
# nothing for a zombie: init may take its time to collect it.
process_start() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" && $1 != "X" { print $20 }'
}

# start_detached NAME COMMAND...: starts a daemon in a session of its own, so that it outlives the
# shell it was started from, and records its pid.
start_detached() {
    local name=$1 log=$IAPD_LOG_DIR/iapd-$1.out record=$IAPD_STATE_DIR/$1.pid pid
    shift
    mkdir -p "$IAPD_LOG_DIR" "$IAPD_STATE_DIR"
    rm -f "$record"
    # shellcheck disable=SC2016 # expanded by the inner shell
    setsid -f bash -c 'echo $$ >"$0"; cd /; exec "$@"' "$record.new" "$@" \
        </dev/null >>"$log" 2>&1 9>&-
    for _ in $(seq 50); do
        [ -s "$record.new" ] && break
        sleep 0.1
    done
    pid=$(cat "$record.new") || die "$name did not start, see $log"
    rm -f "$record.new"
    echo "$pid $(process_start "$pid")" >"$record"
}

# recorded_pid NAME: prints the pid of a daemon that start_detached started and that still lives.
recorded_pid() {
    local pid start
    read -r pid start 2>/dev/null <"$IAPD_STATE_DIR/$1.pid" || return 1
    [ -n "$start" ] && [ "$(process_start "$pid")" = "$start" ] && echo "$pid"
}

# stop_recorded NAME SECONDS: ends a daemon started here; one that we did not start is left alone.
stop_recorded() {
    local pid
    pid=$(recorded_pid "$1") || return 0
    say "stopping $1 ($pid)"
    kill "$pid"
    for _ in $(seq $(($2 * 10))); do
        if ! recorded_pid "$1" >/dev/null; then
            rm -f "$IAPD_STATE_DIR/$1.pid"
            return 0
        fi
        sleep 0.1
    done
    say "$1 ($pid) still runs after $2 s"
    return 1
}

start_lxcfs() {
    [ -e /var/lib/lxcfs/proc/meminfo ] && return
    # A dead lxcfs leaves a mount behind that answers every access with an error.
    if grep -q ' /var/lib/lxcfs fuse' /proc/mounts; then
        umount -l /var/lib/lxcfs
    fi
    mkdir -p /var/lib/lxcfs
    say "starting lxcfs"
    start_detached lxcfs lxcfs /var/lib/lxcfs
    for _ in $(seq 50); do
        [ -e /var/lib/lxcfs/proc/meminfo ] && return
        sleep 0.1
    done
    die "lxcfs does not serve /var/lib/lxcfs, see $IAPD_LOG_DIR/iapd-lxcfs.out"
}

# Starts Incus unless it answers already: through systemd where that runs, detached otherwise.
start_incus() {
    local incusd
    incusd=$(incusd_path) || die "incusd is not installed"
    incus_running && return
    require_root
    if has_systemd; then
        say "starting incus.service"
        systemctl start lxcfs.service incus.socket incus.service || die "incus.service did not start"
    elif ! recorded_pid incusd >/dev/null; then
        start_lxcfs
        [ ! -d /sys/kernel/security/apparmor ] || [ ! -x /usr/libexec/incus/incus-apparmor-load ] ||
            /usr/libexec/incus/incus-apparmor-load
        say "starting incusd"
        # shellcheck disable=SC2016 # expanded by the inner shell
        # As many descriptors as the packaged unit has, or as many as this machine lets us have.
        start_detached incusd env PATH="$PATH:/usr/sbin:/sbin:${incusd%/*}" \
            bash -c 'ulimit -Hn 1048576 2>/dev/null; ulimit -Sn "$(ulimit -Hn)"; exec "$@"' incusd \
            "$incusd" --group incus-admin --logfile "$IAPD_LOG_DIR/incusd.log"
    fi
    for _ in $(seq 12); do
        ! timeout -k 5 5 "$incusd" waitready --timeout=5 2>/dev/null || return 0
        has_systemd || recorded_pid incusd >/dev/null || break
    done
    die "incusd is not ready, see $IAPD_LOG_DIR/incusd.log and iapd-incusd.out"
}

# All guests count against one host uid. Debian's defaults carry about 18 systemd guests; the next
# ones boot, fail and vanish without an error from Incus.
wanted_limits() {
    cat <<'LIMITS'
fs.inotify.max_user_instances 8192
kernel.keys.maxkeys 20000
kernel.keys.maxbytes 2000000
LIMITS
}

limits_low() {
    local key wanted
    wanted_limits | while read -r key wanted; do
        [ "$(sysctl -n "$key")" -ge "$wanted" ] || echo "$key"
    done
}

# Raises what is too low and records what was there before; lowers nothing.
raise_kernel_limits() {
    local record=$IAPD_STATE_DIR/kernel-limits key wanted now
    mkdir -p "$IAPD_STATE_DIR"
    touch "$record"
    while read -r key wanted; do
        now=$(sysctl -n "$key")
        [ "$now" -lt "$wanted" ] || continue
        say "raising $key from $now to $wanted"
        sysctl -qw "$key=$wanted" || die "cannot set $key"
        # The first record stands: it is the machine's own value.
        grep -q "^$key " "$record" || echo "$key $now $wanted" >>"$record"
    done < <(wanted_limits)
}

# Puts back the values raise_kernel_limits replaced, unless somebody has set others since.
restore_kernel_limits() {
    local record=$IAPD_STATE_DIR/kernel-limits key before raised
    [ -f "$record" ] || return 0
    while read -r key before raised; do
        if [ "$(sysctl -n "$key")" = "$raised" ]; then
            say "putting $key back to $before"
            sysctl -qw "$key=$before"
        fi
    done <"$record"
    rm -f "$record"
}

# in_incus_mounts COMMAND...: pools are mounted in the mount namespace of incusd only.
in_incus_mounts() {
    local pid
    pid=$(api_get /1.0 | jq -r .environment.server_pid)
    timeout -k 5 60 nsenter -t "$pid" -m -- "$@"
}

# quota_mode POOL: prints simple, classic or off.
quota_mode() {
    local uuid mode
    uuid=$(in_incus_mounts findmnt -no UUID "$INCUS_DIR/storage-pools/$1") || return 1
    mode=$(cat "/sys/fs/btrfs/$uuid/qgroups/mode" 2>/dev/null) || mode=
    case $mode in
    squota) echo simple ;;
    '') if [ -d "/sys/fs/btrfs/$uuid/qgroups" ]; then echo classic; else echo off; fi ;;
    *) echo classic ;;
    esac
}

# ensure_simple_quotas POOL: Incus turns classic btrfs quotas on, under which every deleted guest
# costs the kernel so much that churn drowns in it; simple ones cap a root disk as well and are free.
ensure_simple_quotas() {
    local path=$INCUS_DIR/storage-pools/$1 mode
    mode=$(quota_mode "$1") || die "cannot tell the quota mode of pool $1"
    [ "$mode" != simple ] || return 0
    if [ "$mode" = classic ]; then
        in_incus_mounts btrfs quota disable "$path" || die "cannot turn quotas off in pool $1"
    fi
    if simple_quotas_supported && in_incus_mounts btrfs quota enable --simple "$path"; then
        say "pool $1: quotas were $mode, are simple now"
    else
        say "pool $1: no simple quotas here (kernel and btrfs-progs $BTRFS_PROGS_MIN), left off"
    fi
}

# ensure_storage NAME SIZE: a btrfs pool on a loop file, with simple quotas.
ensure_storage() {
    local name=$1 size=$2 driver
    if ! api_exists "/1.0/storage-pools/$name"; then
        say "creating storage pool $name ($size, btrfs on a loop file)"
        incus_cli -t 60 -q storage create "$name" btrfs "size=$size" "user.iapd.owner=$IAPD_OWNER" ||
            api_exists "/1.0/storage-pools/$name" || die "cannot create storage pool $name"
    fi
    driver=$(api_get "/1.0/storage-pools/$name" | jq -r .driver)
    [ "$driver" = btrfs ] || die "storage pool $name exists with driver $driver, not btrfs"
    ensure_simple_quotas "$name"
}
