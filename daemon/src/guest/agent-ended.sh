#!/bin/sh
# Runs as root when the agent's unit has ended, however it ended; the machine powers off after it.
# Writes down how it ended, rings the host, and gives it a moment to say that it has seen it, or
# that the machine is to be kept.
umask 022
mkdir -p /run/iapd
rm -f /run/iapd/verdict

# Whether a job can write no more, which explains most of what fails then. A quota shows only when
# something is written, space that is left for root alone only in the count of free blocks.
is_full() {
  case $(stat -f -c %a/%b "$1") in
    0/0) ;; # It counts none, as a tmpfs without a limit.
    0/*) return 0 ;;
  esac
  probe=$(mktemp "$1/.iapd-XXXXXX") || return 0
  head -c 1048576 /dev/zero >"$probe"
  failed=$?
  rm -f "$probe"
  [ "$failed" != 0 ]
}
full=
for directory in /tmp /home/agent; do
  [ ! -d "$directory" ] || ! is_full "$directory" 2>/dev/null || full=$directory
done

printf '{"result":"%s","exit_code":"%s","exit_status":"%s","full":"%s","ended":%s}\n' \
  "${SERVICE_RESULT:-}" "${EXIT_CODE:-}" "${EXIT_STATUS:-}" "$full" "$(date +%s)" \
  >/run/iapd/status.json.new && mv /run/iapd/status.json.new /run/iapd/status.json

if command -v curl >/dev/null 2>&1; then
  curl -s -o /dev/null --max-time 2 --unix-socket /dev/incus/sock \
    -X PATCH -d '{"state":"Ready"}' http://incus/1.0
elif command -v perl >/dev/null 2>&1; then
  perl -MIO::Socket::UNIX -e '
    my $s = IO::Socket::UNIX->new(Peer => "/dev/incus/sock") or exit 1;
    my $body = q({"state":"Ready"});
    print $s "PATCH /1.0 HTTP/1.1\r\nHost: incus\r\nContent-Type: application/json\r\n",
      "Content-Length: ", length($body), "\r\nConnection: close\r\n\r\n", $body;
    alarm 2; 1 while <$s>;'
fi

tries=100
while [ "$tries" -gt 0 ] && [ ! -s /run/iapd/verdict ]; do
  sleep 0.05
  tries=$((tries - 1))
done

# The unit powers the machine off after this script: so that it ends however the agent ends, and
# whatever becomes of this script. Only a reload takes that from a unit that is about to end; it
# was seen to work in this very state. Where it does not, the machine powers off and is kept all
# the same: the host has seen to it that it is not deleted then.
if [ "$(cat /run/iapd/verdict 2>/dev/null)" = keep ]; then
  drop_ins=/run/systemd/system/iapd-agent.service.d
  mkdir -p "$drop_ins" &&
    printf '[Unit]\nSuccessAction=none\nFailureAction=none\n' >"$drop_ins/keep.conf" &&
    systemctl daemon-reload
fi
exit 0
