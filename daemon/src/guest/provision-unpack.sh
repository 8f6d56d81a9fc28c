# Runs as user agent in /home/agent and unpacks the package that was pushed there. A base that has
# an agent already must not end up with two mixed into one, nor with that one's identity.

package=$1

rm -rf bin externals .agent .credentials .credentials_rsaparams .service
tar -xzf "$package"
rm -f "$package"
[ -x run.sh ] || fail "the agent package has no run.sh: is it a package for Linux?"
[ -x bin/Agent.Listener ] || fail "the agent package has no bin/Agent.Listener"
echo "unpacked"
