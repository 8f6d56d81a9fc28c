# Starts the agent inside the guest as a detached unit: whatever ends it, the machine ends too.
# Called as: sh -c "$(this)" iapd-start ATTEMPTS [NAME=VALUE]...
# A stop sends SIGINT to all of the unit: the listener ends well on it (the worker ignores it), and
# run.sh, which is its main process, passes no signal on. When the agent ends by itself, whatever its
# job left running is killed at once: such processes often ignore SIGINT, and would keep the machine
# for as long as a stop may take.
# The guest may still be booting, so starting is tried until its service manager answers.
attempts=$1
shift
# A file that the image had keeps its owner and mode when it is written over.
chown agent:agent /home/agent/.agent /home/agent/.credentials /home/agent/.credentials_rsaparams &&
  chmod 600 /home/agent/.agent /home/agent/.credentials /home/agent/.credentials_rsaparams
# shellcheck disable=SC2016 # expanded in the unit
interrupt='[ -z "${MAINPID}" ] || { trap "" INT; exec systemctl kill --signal=INT iapd-agent; }'
for pair in "$@"; do
  set -- "$@" "--setenv=$pair"
  shift
done
while :; do
  systemd-run --quiet --no-block --collect --unit=iapd-agent \
    --description="Azure Pipelines agent" \
    -p User=agent -p WorkingDirectory=/home/agent \
    -p KillMode=mixed -p KillSignal=SIGINT -p TimeoutStopSec=60 \
    -p "ExecStop=+/bin/sh -c '$interrupt'" \
    -p SuccessAction=poweroff-immediate -p FailureAction=poweroff-immediate \
    -p OOMPolicy=kill -p LimitNOFILE=524288 -p TasksMax=infinity \
    -p EnvironmentFile=-/etc/environment \
    -p ExecStopPost=+/usr/local/sbin/iapd-agent-ended \
    "$@" \
    /bin/bash -c './run.sh --once > >(exec tee -i -a /home/agent/azp-agent.log) 2>&1' \
    2>/dev/null && exit 0
  # The answer may have been lost after the unit was made.
  systemctl is-active --quiet iapd-agent 2>/dev/null && exit 0
  attempts=$((attempts - 1))
  [ "$attempts" -gt 0 ] || break
  sleep 0.05
done
echo "the guest's service manager does not start the agent" >&2
exit 1
