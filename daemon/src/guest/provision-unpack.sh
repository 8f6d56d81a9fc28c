# Runs as user agent in /home/agent and unpacks the package that was pushed there.

package=$1

tar -xzf "$package"
rm -f "$package"
[ -x run.sh ] || fail "the agent package has no run.sh: is it a package for Linux?"
[ -x bin/Agent.Listener ] || fail "the agent package has no bin/Agent.Listener"
echo "unpacked"
