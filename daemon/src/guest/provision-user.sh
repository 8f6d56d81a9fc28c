# The user that agents run as: agent, uid and gid 1100, home /home/agent. Files the daemon pushes
# into a running guest belong to 1100 by number, so no other number will do.

id=1100
home=/home/agent

owner_of_uid=$(getent passwd "$id" | cut -d: -f1)
owner_of_gid=$(getent group "$id" | cut -d: -f1)
if [ -n "$owner_of_uid" ] && [ "$owner_of_uid" != agent ]; then
    fail "uid $id belongs to user $owner_of_uid, but user agent needs it: choose another base"
fi
if [ -n "$owner_of_gid" ] && [ "$owner_of_gid" != agent ]; then
    fail "gid $id belongs to group $owner_of_gid, but group agent needs it: choose another base"
fi
if getent group agent >/dev/null && [ -z "$owner_of_gid" ]; then
    fail "group agent has gid $(getent group agent | cut -d: -f3) instead of $id: choose another base"
fi
if getent passwd agent >/dev/null && [ -z "$owner_of_uid" ]; then
    fail "user agent has uid $(getent passwd agent | cut -d: -f3) instead of $id: choose another base"
fi

[ -n "$owner_of_gid" ] || groupadd --gid "$id" agent
if [ -z "$owner_of_uid" ]; then
    useradd --uid "$id" --gid agent --home-dir "$home" --create-home --shell /bin/bash agent
fi
[ "$(id -g agent)" = "$id" ] || usermod --gid "$id" agent
[ "$(getent passwd agent | cut -d: -f6)" = "$home" ] || usermod --home "$home" agent
install -d -o "$id" -g "$id" -m 0755 "$home"

# A base that has an agent already must not end up with two mixed into one, nor with that one's
# identity, settings, proxy and leftovers. Removed as root: its jobs may have left files of root's.
cd "$home" || fail "cannot enter $home"
rm -rf bin externals _diag _work .agent .service .env .path .options .autologon .setup_info
rm -rf .credentials .credentials_rsaparams .credential_store .certificates
rm -rf .proxy .proxycredentials .proxybypass
echo "user agent, uid $id"
