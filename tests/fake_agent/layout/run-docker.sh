#!/bin/bash
# Runs the listener for as long as it ends for an update (3, or 4 with --once).

DIR="$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
while :; do
    "$DIR"/bin/Agent.Listener run "$@"
    returnCode=$?
    if [[ $returnCode != 3 && $returnCode != 4 ]]; then
        exit $returnCode
    fi
    sleep "${FAKE_AGENT_UPDATE_PAUSE:-5}"
done
