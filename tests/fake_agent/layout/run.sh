#!/bin/bash
# Same behaviour as the real agent's run.sh: passes exit codes through, and after code 4 (updated while
# waiting with --once) runs the listener once more.

user_id=$(id -u)
if [ "$user_id" -eq 0 ] && [ -z "$AGENT_ALLOW_RUNASROOT" ]; then
    echo "Must not run interactively with sudo"
    exit 1
fi

DIR="$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"

"$DIR"/bin/Agent.Listener run "$@"
returnCode=$?
if [[ $returnCode != 4 ]]; then
    exit $returnCode
fi

# Tests shorten the pause for the update.
sleep "${FAKE_AGENT_UPDATE_PAUSE:-5}"
for _ in {1..15}; do
    [ -x "$DIR"/bin/Agent.Listener ] && break
    sleep 1
done
"$DIR"/bin/Agent.Listener run "$@"
