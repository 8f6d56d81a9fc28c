# Takes out of the builder what has to differ between the instances of its image, and what only the
# builder has left behind. The last thing that runs in it.

# A user script may have brought docker.
! getent group docker >/dev/null || usermod --append --groups docker agent

# An empty file, not a missing one: systemd writes a new id at the first boot.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret

# With no file the guest keeps the name Incus gives it; where the image has templates, Incus writes
# the file anew for each instance.
rm -f /etc/hostname

rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
if command -v sshd >/dev/null || [ -x /usr/sbin/sshd ]; then
    cat >/etc/systemd/system/ssh-host-keys.service <<'UNIT'
[Unit]
Description=Make this machine's own SSH host keys
Before=ssh.service
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
    systemctl enable ssh-host-keys.service
fi

! command -v cloud-init >/dev/null || cloud-init clean --logs

apt-get clean
rm -f /var/lib/dhcp/*.leases
rm -rf /root/iapd-provision
find /tmp /var/tmp -xdev -mindepth 1 -delete || true
find /var/log -xdev -type f -exec truncate -s 0 {} + || true
rm -rf /var/log/journal/*
rm -f /root/.bash_history /home/*/.bash_history
echo "machine-id, host name and host keys are left to each instance"
