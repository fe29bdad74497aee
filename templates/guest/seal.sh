#!/bin/sh
# Makes this system one of many: no identity, no secrets, no logs, a network that fits any card. Run as root, last.
# It may run again: every step leaves alone what is already right.
#
# Arguments: cloud-init's policy ("off" or "nocloud"), the user, "proxy" if apt's proxy is to stay. Beside it may lie
# netplan.yaml, the class's own network, and placed.txt, the paths that the class has placed: these stay.
set -u
policy=${1:-off}
user=${2:-ubuntu}
proxy=${3:-}
here=${0%/*}

unit() { systemctl "$@" > /dev/null 2>&1; }
placed() {
    [ -e "$here/placed.txt" ] || return 1
    while read -r one; do
        case $one in "$1" | "$1"/*) return 0 ;; esac
    done < "$here/placed.txt"
    return 1
}
drop() {
    for path; do
        { [ ! -e "$path" ] && [ ! -L "$path" ]; } || placed "$path" || rm -rf -- "$path"
    done
}

# Nothing may write a journal or a log from here on.
unit stop rsyslog.service syslog.socket unattended-upgrades.service
unit mask --runtime --now systemd-journald-audit.socket systemd-journald-dev-log.socket systemd-journald.socket \
    systemd-journald.service systemd-random-seed.service
unit mask --runtime --now systemd-update-utmp.service # it would write down the power-off

# cloud-init has made the user. Whether it is asked again is the policy.
drop /var/lib/cloud /etc/cloud/cloud.cfg.d/90-installer-network.cfg /etc/cloud/cloud.cfg.d/99-installer.cfg \
    /etc/cloud/cloud.cfg.d/20-disable-cc-dpkg-grub.cfg /etc/cloud/cloud.cfg.d/*subiquity-disable-cloudinit-networking.cfg \
    /etc/cloud/cloud.cfg.d/curtin-preserve-sources.cfg /etc/cloud/clean.d/99-installer /etc/cloud/ds-identify.cfg \
    /etc/sudoers.d/90-cloud-init-users
mkdir -p /etc/cloud/cloud.cfg.d
if [ "$policy" = nocloud ]; then
    drop /etc/cloud/cloud-init.disabled
    # ds-identify looks for a seed before anything starts; where there is none, cloud-init stays off, on every
    # architecture, and the system is what it is with the policy "off". The datasource None is not in the list: it
    # would find itself everywhere, and cloud-init adds it behind one that was found.
    echo 'policy: search,found=all,maybe=none,notfound=disabled' > /etc/cloud/ds-identify.cfg
    cat > /etc/cloud/cloud.cfg.d/90-prebake.cfg << CFG
# cloud-init is asked where a seed is (a disk labelled cidata or config-2, as Proxmox makes them), and is off otherwise.
datasource_list: [NoCloud, ConfigDrive]
system_info:
  default_user:
    # The user that there is, whose password stays: cloud-init locks its default user's otherwise.
    name: "$user"
    lock_passwd: false
apt:
  preserve_sources_list: true # the image's own, or its class's
CFG
else
    rm -f /etc/cloud/cloud.cfg.d/90-prebake.cfg
    : > /etc/cloud/cloud-init.disabled
fi

# One network configuration: the class's own, or one for a card of any name and address. What a seed says of a card
# goes before it: networkd takes the first file that fits, and `zz` is the last.
mkdir -p /etc/netplan
rm -f /etc/netplan/*.yaml /etc/udev/rules.d/70-persistent-net.rules
umask 077
if [ -e "$here/netplan.yaml" ]; then
    cp "$here/netplan.yaml" /etc/netplan/01-netcfg.yaml
else
    cat > /etc/netplan/01-netcfg.yaml << 'YAML'
network:
  version: 2
  renderer: networkd
  ethernets:
    zz-any:
      match: {name: "e*"}
      dhcp4: true
      dhcp6: false
      dhcp-identifier: mac
      optional: true
YAML
fi
umask 022

# Identity. An empty machine-id is filled at the next boot, without systemd's first-boot questions.
: > /etc/machine-id
chmod 0444 /etc/machine-id
drop /var/lib/dbus/machine-id /etc/ssh/ssh_host_* /var/lib/systemd/random-seed /var/lib/systemd/credential.secret \
    /boot/efi/loader/random-seed /var/cache/pollinate/* /var/lib/ubuntu-advantage/private/*

# Logs and what else remembers: the installer's logs hold the password's hash.
drop /var/log/installer /var/log/curtin /root/curtin-install* /var/log/journal/* /var/log/unattended-upgrades/* \
    /var/log/*.gz /var/log/*.[0-9] /var/log/cloud-init.log /var/log/cloud-init-output.log \
    /var/crash/* /var/lib/systemd/coredump/* /var/lib/apport/coredump/* /var/lib/wtmpdb/* /var/lib/lastlog/* \
    /var/lib/update-notifier/updates-available /var/lib/update-notifier/release-upgrade-available
find /var/log -type f -size +0 | while read -r log; do
    placed "$log" || truncate -s 0 "$log"
done
drop /tmp/* /tmp/.[!.]* /var/tmp/* /root/.cache /home/*/.cache
find /root /home -xdev -maxdepth 2 \( -name '.*_history' -o -name .lesshst -o -name .viminfo -o -name .wget-hsts \
    -o -name .sudo_as_admin_successful \) | while read -r history; do
    drop "$history"
done
drop /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /etc/.pwd.lock
drop /var/lib/dhcp/* /var/lib/NetworkManager/*.lease /var/lib/systemd/timers/* /var/lib/sudo/* /run/sudo/ts/*
# cloud-init makes folders for keys that nobody gave; keys stay, for only the class can have placed them.
for folder in /root/.ssh /home/*/.ssh; do
    [ -d "$folder" ] || continue
    [ -s "$folder/authorized_keys" ] || drop "$folder/authorized_keys"
    rmdir "$folder" 2> /dev/null
done

# Packages that were fetched only to be installed, and how the installer fetched them.
apt-get clean
drop /var/lib/apt/lists/* /var/cache/debconf/*-old /var/cache/man /etc/apt/sources.list.curtin.old \
    /etc/apt/sources.list.d/*.curtin.*
[ "$proxy" = proxy ] || drop /etc/apt/apt.conf.d/90curtin-aptproxy

sync
fstrim --all > /dev/null 2>&1
exit 0
