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

# The agent's own list (libicu and the like). It always asks apt, so it fails without a network even
# when nothing is missing; what is really missing shows in the smoke test.
dependencies=/home/agent/bin/installdependencies.sh
if [ -x "$dependencies" ]; then
    if ! (cd /home/agent && "$dependencies") </dev/null; then
        ! have_network || fail "the agent's installdependencies.sh failed"
        echo "warning: the agent's installdependencies.sh failed, the guest has no network"
        note="$note, agent's dependencies not checked"
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
