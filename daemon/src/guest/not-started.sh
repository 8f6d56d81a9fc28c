# Exits 0 when the agent's unit was never started in this guest and nobody is about to start it, 10
# when that is not sure. A unit that ended takes the machine with it, so one that is not loaded never
# was. Called as: sh -c "$(this)"
tries=100
while [ "$tries" -gt 0 ]; do
  starter=
  for process in /proc/[0-9]*; do
    # The brackets keep this script from finding itself.
    grep -qs '[i]apd-start' "$process/cmdline" && starter=$process
  done
  if [ -z "$starter" ] &&
    state=$(systemctl show --property=LoadState --value iapd-agent.service 2>/dev/null); then
    [ "$state" = not-found ] && exit 0
    exit 10
  fi
  tries=$((tries - 1))
  sleep 0.05
done
exit 10
