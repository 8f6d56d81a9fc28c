# Asks the agent's listener to end: it closes its session and gives back a job that it was just
# assigned. Called as: sh -c "$(this)"
exec systemctl stop --no-block iapd-agent.service
