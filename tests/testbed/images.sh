# shellcheck shell=bash
# shellcheck disable=SC2034 # read by the scripts that source this file
# The test bed's names, its project and its two images: `debian-min`, a small Debian with systemd, and
# `iapd-test-runner`, the same with the user `agent` and an agent's files. No image server is
# needed: both are packed here and cached by a hash of what they are made from.

# The cache and the names are also what the Rust tests read from $CACHE/env.
readonly CACHE=${IAPD_TESTBED_CACHE:-/var/cache/iapd-testbed}
readonly MIRROR=${IAPD_TESTBED_MIRROR:-http://deb.debian.org/debian}
readonly PROJECT=${IAPD_TEST_PROJECT:-iapd-test}
readonly POOL=${IAPD_TEST_POOL:-iapd-test}
readonly POOL_SIZE=20GiB
readonly BASE_IMAGE=debian-min
readonly RUNNER_IMAGE=iapd-test-runner
readonly PACKAGES=systemd,systemd-sysv,dbus,sudo,procps,ca-certificates,curl,perl-base
# The image property that tells which recipe an image was made from.
readonly RECIPE_PROPERTY=iapd.testbed-recipe

# base_rootfs FOLDER: a Debian that boots fast in a container and has no identity of its own.
base_rootfs() {
    local root=$1 unit
    mmdebstrap --quiet --variant=minbase --include="$PACKAGES" \
        --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --aptopt='Acquire::Languages "none"' \
        bookworm "$root" "$MIRROR"
    # Nobody logs in, there is no network to wait for, and no guest lives long enough for a timer.
    # Many guests boot at once on few CPUs, so each unit left out counts.
    for unit in getty.target console-getty.service getty-static.service \
        apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
        e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer \
        systemd-networkd.service systemd-networkd-wait-online.service systemd-resolved.service \
        systemd-timesyncd.service systemd-logind.service systemd-pstore.service \
        systemd-update-utmp.service systemd-update-utmp-runlevel.service \
        systemd-journal-flush.service systemd-ask-password-wall.path \
        systemd-ask-password-console.path \
        dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
        sys-kernel-config.mount sys-fs-fuse-connections.mount; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    # Empty rather than absent: systemd then writes an id at boot, without first-boot questions.
    : >"$root/etc/machine-id"
    rm -f "$root/etc/hostname" "$root/var/lib/dbus/machine-id"
}

# image_metadata FOLDER DESCRIPTION [KEY VALUE]...: the image's metadata with extra properties.
image_metadata() {
    local meta=$1 description=$2
    shift 2
    mkdir -p "$meta/templates"
    {
        echo "architecture: $(uname -m)"
        echo "creation_date: $(date +%s)"
        echo "properties:"
        echo "  os: debian"
        echo "  release: bookworm"
        echo "  description: \"$description\""
        while [ $# -gt 0 ]; do
            echo "  $1: \"$2\""
            shift 2
        done
        # sudo needs to resolve the guest's own name.
        echo "templates:"
        echo "  /etc/hostname: {when: [create, copy], template: hostname.tpl}"
        echo "  /etc/hosts: {when: [create, copy], template: hosts.tpl}"
    } >"$meta/metadata.yaml"
    echo '{{ container.name }}' >"$meta/templates/hostname.tpl"
    printf '127.0.0.1 localhost\n127.0.1.1 {{ container.name }}\n::1 localhost ip6-localhost\n' \
        >"$meta/templates/hosts.tpl"
}

# pack_rootfs FOLDER FILE: an image is read once, so speed of packing wins over size. No file in it
# has capabilities, and squashfs would complain about the journal's ACLs.
pack_rootfs() {
    mksquashfs "$1" "$2" -noappend -no-xattrs -comp zstd -Xcompression-level 3 -quiet -no-progress >/dev/null
}

# add_agent FOLDER TARBALL: the user an agent runs as, and the agent's files in its home.
add_agent() {
    local root=$1 tarball=$2
    echo 'agent:x:1100:1100:Azure Pipelines agent:/home/agent:/bin/bash' >>"$root/etc/passwd"
    echo 'agent:x:1100:' >>"$root/etc/group"
    echo 'agent:!:19700:0:99999:7:::' >>"$root/etc/shadow"
    echo 'agent:!::' >>"$root/etc/gshadow"
    echo 'agent ALL=(ALL:ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/agent"
    chmod 0440 "$root/etc/sudoers.d/agent"
    mkdir -p "$root/home/agent"
    cp -a "$root/etc/skel/." "$root/home/agent/"
    tar -xf "$tarball" -C "$root/home/agent" --no-same-owner
    chown -hR 1100:1100 "$root/home/agent"
    chmod 0750 "$root/home/agent"
}

hash_of() {
    sha256sum | cut -c1-16
}

# The code of the functions without their comments is the recipe.
base_key() {
    { declare -f base_rootfs image_metadata pack_rootfs && echo "$PACKAGES $MIRROR $(uname -m)"; } |
        hash_of
}

# runner_key TARBALL
runner_key() {
    { base_key && declare -f add_agent && sha256sum <"$1"; } | hash_of
}

# fresh_folder: an empty folder in the cache, removed when the script ends.
fresh_folder() {
    mkdir -p "$CACHE"
    WORK=$(mktemp -d "$CACHE/work.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
}

# keep_cached PREFIX COUNT: drops all but the newest files of one kind.
keep_cached() {
    local old
    find "$CACHE" -maxdepth 1 -name "$1-*.squashfs" -printf '%T@ %p\n' | sort -rn | tail -n +$(($2 + 1)) |
        cut -d' ' -f2- | while read -r old; do
        rm -f "$old" "${old%.squashfs}.meta.tar"
    done
}

# build_base KEY: leaves base-KEY.squashfs and base-KEY.meta.tar in the cache.
build_base() {
    local stem=$CACHE/base-$1
    [ ! -f "$stem.squashfs" ] || return 0
    say "building $BASE_IMAGE from $MIRROR (half a minute)"
    fresh_folder
    chmod 0755 "$WORK"
    base_rootfs "$WORK/rootfs" || die "mmdebstrap failed"
    image_metadata "$WORK/meta" "iapd test bed: Debian with systemd" "$RECIPE_PROPERTY" "$1"
    tar -C "$WORK/meta" -cf "$stem.meta.tar" metadata.yaml templates
    pack_rootfs "$WORK/rootfs" "$WORK/rootfs.squashfs" || die "mksquashfs failed"
    mv "$WORK/rootfs.squashfs" "$stem.squashfs"
    rm -rf "$WORK"
    keep_cached base 1
}

# build_runner KEY TARBALL: leaves runner-KEY.squashfs and runner-KEY.meta.tar in the cache.
build_runner() {
    local key=$1 tarball=$2 stem=$CACHE/runner-$1 base version properties
    [ ! -f "$stem.squashfs" ] || return 0
    base=$(base_key)
    build_base "$base"
    say "building $RUNNER_IMAGE from ${tarball##*/}"
    fresh_folder
    unsquashfs -quiet -no-progress -d "$WORK/rootfs" "$CACHE/base-$base.squashfs" >/dev/null ||
        die "unsquashfs failed"
    add_agent "$WORK/rootfs" "$tarball" || die "cannot unpack $tarball"
    properties=("$RECIPE_PROPERTY" "$key")
    if [ -f "$WORK/rootfs/home/agent/bin/agent-version" ]; then
        version=$(tr -cd 'A-Za-z0-9.+~-' <"$WORK/rootfs/home/agent/bin/agent-version")
        properties+=(iapd.agent-version "$version")
    fi
    image_metadata "$WORK/meta" "iapd test bed: agent" "${properties[@]}"
    tar -C "$WORK/meta" -cf "$stem.meta.tar" metadata.yaml templates
    pack_rootfs "$WORK/rootfs" "$WORK/rootfs.squashfs" || die "mksquashfs failed"
    mv "$WORK/rootfs.squashfs" "$stem.squashfs"
    rm -rf "$WORK"
    keep_cached runner 3
}

# alias_target ALIAS: prints the fingerprint behind an alias, nothing when there is none.
alias_target() {
    local path="/1.0/images/aliases/$1?project=$PROJECT"
    api_exists "$path" || return 0
    api_get "$path" | jq -r .target
}

# image_is_current ALIAS KEY: whether the alias leads to the image of this recipe.
image_is_current() {
    local target
    target=$(alias_target "$1")
    [ -n "$target" ] &&
        [ "$(api_get "/1.0/images/$target?project=$PROJECT" |
            jq -r --arg p "$RECIPE_PROPERTY" '.properties[$p]')" = "$2" ]
}

# import_image ALIAS STEM: imports the pair of files and points the alias at it in one step, so that
# no test sees the alias missing.
import_image() {
    local alias=$1 stem=$2 old new
    new=$(cat "$stem.meta.tar" "$stem.squashfs" | sha256sum | cut -d' ' -f1)
    old=$(alias_target "$alias")
    if ! api_exists "/1.0/images/$new?project=$PROJECT"; then
        say "importing $alias"
        incus_cli -t 120 -q image import "$stem.meta.tar" "$stem.squashfs" --project "$PROJECT" \
            >/dev/null || api_exists "/1.0/images/$new?project=$PROJECT" || die "cannot import $alias"
        warm_image "$new"
    fi
    if [ -z "$old" ]; then
        incus_cli -q image alias create "$alias" "$new" --project "$PROJECT" ||
            [ "$(alias_target "$alias")" = "$new" ] || die "cannot create the alias $alias"
    elif [ "$old" != "$new" ]; then
        incus_cli query -X PUT -d "{\"target\": \"$new\"}" \
            "/1.0/images/aliases/$alias?project=$PROJECT" >/dev/null ||
            die "cannot move the alias $alias"
        # Instances do not need their image any more once they exist.
        if [ "$(api_get "/1.0/images/$old?project=$PROJECT" | jq '.aliases | length')" = 0 ]; then
            incus_cli -t 60 -q image delete "$old" --project "$PROJECT" || say "kept the old image $old"
        fi
    fi
}

# warm_image FINGERPRINT: the first instance of an image makes Incus unpack it into the pool. Done
# here, it does not count as the time of whichever test comes first.
warm_image() {
    local name=testbed-warm-$BASHPID
    if incus_cli -t 120 query --wait -X POST "/1.0/instances?project=$PROJECT" -d \
        "{\"name\": \"$name\", \"source\": {\"type\": \"image\", \"fingerprint\": \"$1\"}}" >/dev/null; then
        incus_cli -t 60 -q delete -f "$name" --project "$PROJECT" || say "cannot delete $name"
    else
        say "cannot create an instance of $1"
    fi
}

# The project tests may do as they like in.
ensure_test_project() {
    if ! api_exists "/1.0/projects/$PROJECT"; then
        say "creating project $PROJECT"
        incus_cli -q project create "$PROJECT" -c features.images=true -c features.profiles=true \
            -c features.storage.volumes=true -c "user.iapd.owner=$IAPD_OWNER" ||
            api_exists "/1.0/projects/$PROJECT" || die "cannot create project $PROJECT"
    fi
    is_ours "/1.0/projects/$PROJECT" || die "project $PROJECT exists and is not the test bed's"

    # Guests get no network: they reach the host through a bind-mounted socket.
    local profile="/1.0/profiles/default?project=$PROJECT"
    if [ "$(api_get "$profile" | jq -r '.devices.root.pool // ""')" != "$POOL" ]; then
        incus_cli -q profile device add default root disk path=/ "pool=$POOL" --project "$PROJECT" ||
            [ "$(api_get "$profile" | jq -r '.devices.root.pool // ""')" = "$POOL" ] ||
            die "cannot give the default profile its root disk"
    fi
}

ensure_base_image() {
    local key
    key=$(base_key)
    image_is_current "$BASE_IMAGE" "$key" && return
    build_base "$key"
    import_image "$BASE_IMAGE" "$CACHE/base-$key"
}

# write_env FILE: where the tests find it all.
write_env() {
    mkdir -p "$CACHE"
    cat >"$1.new" <<ENV
IAPD_TEST_INCUS_SOCKET=$INCUS_SOCKET
IAPD_TEST_PROJECT=$PROJECT
IAPD_TEST_POOL=$POOL
IAPD_TEST_IMAGE=$BASE_IMAGE
IAPD_TEST_RUNNER_IMAGE=$RUNNER_IMAGE
ENV
    mv "$1.new" "$1"
}
