#!/bin/sh
# Says what this system is, one `key=value` a line. Run as root; the first argument is the user to look at.
user=$1

say() { printf '%s=%s\n' "$1" "$2"; }
lines() { tr '\n' ' ' | sed 's/ *$//'; }

# shellcheck source=/dev/null
say system "$(. /etc/os-release && echo "$PRETTY_NAME")"
say kernel "$(uname -r)"
say hostname "$(cat /etc/hostname)"
say cmdline "$(cat /proc/cmdline)"
say firmware "$([ -d /sys/firmware/efi ] && echo uefi || echo bios)"
say machine-id "$(cat /etc/machine-id)"
say user-id "$(id -u "$user" 2> /dev/null)"
say user-groups "$(id -Gn "$user" 2> /dev/null)"
say root-password "$(awk -F: '$1 == "root" { print ($2 ~ /^[!*]/) ? "locked" : "set" }' /etc/shadow)"
if [ -e /etc/cloud/cloud-init.disabled ] && [ ! -e /run/cloud-init/result.json ]; then
    say cloud-init disabled
else
    say cloud-init "$(cloud-init status --wait 2> /dev/null | sed -n 's/^status: //p' | tail -n 1)"
fi

# DHCP may take a moment after the login prompt.
tries=0
until ip -4 -o address show scope global | grep -q . || [ "$tries" -ge 20 ]; do
    tries=$((tries + 1))
    sleep 1
done
say nics "$(find /sys/class/net -mindepth 1 -maxdepth 1 -name 'e*' -printf '%f\n' | sort | lines)"
say addresses "$(ip -4 -o address show scope global | awk '{ print $4 }' | lines)"
say netplan "$(find /etc/netplan -name '*.yaml' -printf '%f\n' 2> /dev/null | sort | lines)"

root=$(findmnt -n -o SOURCE /)
disk=$(lsblk -s -n -r -p -o NAME,TYPE "$root" | awk '$2 == "disk" { print $1; exit }')
say root-device "$root"
say root-bytes "$(lsblk -b -d -n -o SIZE "$root" | tr -d ' ')"
say root-used "$(df -B1 --output=used / | tail -n 1 | tr -d ' ')"
say disk-bytes "$(lsblk -b -d -n -o SIZE "$disk" | tr -d ' ')"

say ssh-server "$(command -v sshd > /dev/null && echo present || echo absent)"
say listening "$(ss -H -l -t -n | awk '{ print $4 }' | sort | lines)"
say failed-units "$(systemctl list-units --failed --plain --no-legend | awk '{ print $1 }' | lines)"
say consoles "$(systemctl list-units --plain --no-legend 'getty@*' 'serial-getty@*' | awk '{ print $1 }' | lines)"
screen=none
if [ -r /dev/vcs1 ]; then
    columns=$(stty -F /dev/tty1 size | cut -d' ' -f2)
    tries=0
    until screen=$(fold -w "$columns" < /dev/vcs1 | grep -a 'login:') || [ "$tries" -ge 10 ]; do
        tries=$((tries + 1))
        sleep 1
    done
fi
say screen "$(printf '%s' "$screen" | tail -n 1 | sed 's/ *$//')"
say installer-logs "$([ -e /var/log/installer ] && echo present || echo absent)"
# shellcheck disable=SC2016
say hashes-in-logs "$(grep -rlE '\$(6|y|5|2b)\$[^ ]{20}' /var/log /var/lib/cloud /etc/cloud 2> /dev/null | lines)"
say host-keys "$(find /etc/ssh -name 'ssh_host_*' 2> /dev/null | lines)"
