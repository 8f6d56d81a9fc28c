# Docker for jobs, unless the base has one already, from wherever.

if ! command -v docker >/dev/null; then
    if ! have_network; then
        echo "skipped: no network"
        exit 77
    fi
    packages=docker.io
    # From Debian 13 on the program is a package of its own, which docker.io only recommends.
    if apt-cache pkgnames docker-cli | grep -qx docker-cli; then
        packages="$packages docker-cli"
    fi
    # shellcheck disable=SC2086 # a list of packages
    apt_install $packages || fail "docker could not be installed"
    command -v docker >/dev/null || fail "docker.io was installed, but there is no docker"
fi
! getent group docker >/dev/null || usermod --append --groups docker agent
docker --version
