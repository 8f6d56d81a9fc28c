#!/bin/bash
# The stand-in is configured by ready-made files only; the listener says so.

user_id=$(id -u)
if [ "$user_id" -eq 0 ] && [ -z "$AGENT_ALLOW_RUNASROOT" ]; then
    echo "Must not run with sudo"
    exit 1
fi

DIR="$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
cd "$DIR" || exit 1
if [[ $1 == remove || $1 == reauth ]]; then
    exec ./bin/Agent.Listener "$@"
fi
source ./env.sh
exec ./bin/Agent.Listener configure "$@"
