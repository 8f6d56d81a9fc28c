# Docker for jobs, unless the base has one already, from wherever.

if ! command -v docker >/dev/null; then
    if ! have_network; then
        echo "skipped: no network"
        exit 77
    fi
    apt_install docker.io || fail "docker could not be installed"
fi
! getent group docker >/dev/null || usermod --append --groups docker agent
docker --version
