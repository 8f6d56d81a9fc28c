# What every agent needs besides its package. Installs only what is missing, so that a base which
# has it all needs no network.

missing=
command -v sudo >/dev/null || missing="$missing sudo"
[ -s /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
# Either one rings the doorbell.
command -v curl >/dev/null || command -v perl >/dev/null || missing="$missing curl"
command -v tar >/dev/null || missing="$missing tar"

if [ -n "$missing" ]; then
    have_network || fail "the base lacks$missing, and the guest has no network to install from"
    # Unquoted: a list of names.
    # shellcheck disable=SC2086 # a list of packages
    apt_install $missing
fi

note=
if ! command -v git >/dev/null; then
    if have_network && apt_install git; then
        missing="$missing git"
    else
        echo "warning: git is not installed and cannot be: pipelines that check out a repository will fail"
        note=", without git"
    fi
fi

# The agent's own list (libssl, libicu and the like). It fails where it should not: it always asks
# apt, so without a network even when nothing is missing, and it knows ICU only by the versions of
# some releases, which Debian 12's is not one of. What is really missing shows in the smoke test.
has_libraries() {
    libraries=$(ldconfig -p)
    case $libraries in *libssl.so.*) ;; *) return 1 ;; esac
    case $libraries in *libicuuc.so.*) ;; *) return 1 ;; esac
}

install_icu() {
    icu=$(apt-cache pkgnames libicu | grep -E '^libicu[0-9]+$' | sort -V | tail -n 1)
    [ -n "$icu" ] || return 1
    apt_install "$icu" || return 1
    missing="$missing $icu"
}

dependencies=/home/agent/bin/installdependencies.sh
if [ -x "$dependencies" ] && ! (cd /home/agent && "$dependencies") </dev/null; then
    echo "warning: the agent's installdependencies.sh failed"
    note="$note, agent's dependencies not checked"
    if has_libraries; then
        echo "libssl and libicu are there: going on"
    elif ! have_network; then
        echo "warning: the guest has no network to install libssl and libicu from"
    elif ! install_icu; then
        echo "warning: the base's own libicu could not be installed either"
    fi
fi

printf 'agent ALL=(ALL) NOPASSWD:ALL\n' >/etc/sudoers.d/90-agent
chmod 0440 /etc/sudoers.d/90-agent

# The agent's unit reads this file; without a locale the tools in jobs print ASCII.
touch /etc/environment
if ! grep -q '^LANG=' /etc/environment; then
    printf 'LANG=C.UTF-8\n' >>/etc/environment
fi

if [ -n "$missing" ]; then
    echo "installed$missing$note"
else
    echo "nothing was missing$note"
fi
