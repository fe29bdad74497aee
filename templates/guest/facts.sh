#!/bin/sh
# Says what this system is, one `key=value` a line. Run as root. Arguments: the user to look at, and how many seconds
# to wait for a start that is not over.
user=$1
seconds=${2:-60}

say() { printf '%s=%s\n' "$1" "$2"; }
lines() { tr '\n' ' ' | sed 's/ *$//'; }
there() { # which of these exist
    for path; do
        { [ ! -e "$path" ] && [ ! -L "$path" ]; } || echo "$path"
    done | lines
}
# Which of these were there before the kernel started? By the inode's own time, which nobody can set. (/dev/null and
# its like tell a later one: udev renews them.)
started=@$(($(sed -n 's/^btime //p' /proc/stat) - 1))
older() { find "$@" -type f -size +0 ! -newerct "$started" 2> /dev/null | sort | lines; }

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

# DHCP may take a moment after the login prompt; a card that is not there after five seconds does not come.
card() { [ -n "$(find /sys/class/net -name 'e*')" ]; }
tries=0
until ip -4 -o address show scope global | grep -q . || [ "$tries" -ge 20 ] || { [ "$tries" -ge 5 ] && ! card; }; do
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
say root-size "$(df -B1 --output=size / | tail -n 1 | tr -d ' ')"
say grow-root "$(systemctl is-enabled grow-root.service 2> /dev/null) $([ -x /usr/local/sbin/grow-root ] && echo there)"
say swap "$(swapon --show=SIZE --bytes --noheadings | awk '{ sum += $1 } END { printf "%d", sum }')"
say swap-wanted "$(awk '$1 !~ /^#/ && $3 == "swap"' /etc/fstab | wc -l)"
say swap-files "$(there /swap.img /swapfile)"

say ssh-server "$(command -v sshd > /dev/null && echo present || echo absent)"
say state "$(timeout "$seconds" systemctl is-system-running --wait 2> /dev/null | tail -n 1)"
say jobs "$(systemctl list-jobs --plain --no-legend 2> /dev/null | awk '{ print $2 }' | head -n 5 | lines)"
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
say ssh-keys-made "$(there /etc/systemd/system/ssh.service.d/host-keys.conf)"

# What the seal takes away, item by item.
say cloud-policy "$(for one in off:/etc/cloud/cloud-init.disabled nocloud:/etc/cloud/cloud.cfg.d/90-prebake.cfg; do
    [ ! -e "${one#*:}" ] || echo "${one%%:*}"
done | lines)"
say cloud-lists "$(sed -n 's/^datasource_list: *//p' /etc/cloud/cloud.cfg.d/90-prebake.cfg 2> /dev/null)"
say cloud-leftovers "$(there /etc/cloud/cloud.cfg.d/90-installer-network.cfg /etc/cloud/cloud.cfg.d/99-installer.cfg \
    /etc/cloud/cloud.cfg.d/20-disable-cc-dpkg-grub.cfg /etc/cloud/cloud.cfg.d/*subiquity-disable-cloudinit-networking.cfg \
    /etc/cloud/cloud.cfg.d/curtin-preserve-sources.cfg /etc/cloud/clean.d/99-installer \
    /var/lib/cloud/instances/* /etc/sudoers.d/90-cloud-init-users)"
say older-secrets "$(older /etc/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /boot/efi/loader/random-seed \
    /var/lib/dbus/machine-id /var/cache/pollinate /var/lib/ubuntu-advantage/private)"
say backups "$(there /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-)"
say crashes "$(there /var/crash/* /var/lib/systemd/coredump/* /var/lib/apport/coredump/*)"
say log-bytes "$(du -s -B1 /var/log | cut -f1)"
say older-logs "$(older /var/log /var/lib/wtmpdb /var/lib/lastlog)"
say histories "$(find /root /home -xdev -maxdepth 2 \( -name '.*_history' -o -name .lesshst -o -name .viminfo \
    -o -name .wget-hsts -o -name .cache \) ! -newerct "$started" 2> /dev/null | sort | lines)"
say leases "$(older /var/lib/dhcp /var/lib/NetworkManager; there /etc/udev/rules.d/70-persistent-net.rules)"
say temporary "$(find /tmp /var/tmp -mindepth 1 -maxdepth 1 ! -newerct "$started" 2> /dev/null | sort | lines)"
say apt-lists "$(older /var/lib/apt/lists /var/cache/apt/archives)"
say apt-leftovers "$(there /etc/apt/sources.list.curtin.old /etc/apt/sources.list.d/*.curtin.*)"
say apt-proxy "$(there /etc/apt/apt.conf.d/90curtin-aptproxy)"
say kernels "$(find /boot -maxdepth 1 -name 'vmlinuz-[0-9]*' -printf '%f\n' | sed 's/^vmlinuz-//' | sort -V | lines)"
say firmware-mib "$(du -s -m --exclude='*-ucode' --exclude='[0-9]*' /usr/lib/firmware 2> /dev/null | cut -f1)"
# The longest that GRUB would wait in its menu, whatever happened before; -1 is for ever.
say grub-timeouts "$(sed -n 's/^ *set timeout=//p' /boot/grub/grub.cfg 2> /dev/null | sort -n -u | lines)"
if command -v snap > /dev/null 2>&1; then
    if timeout "$seconds" snap wait system seed.loaded > /dev/null 2>&1; then
        say snaps seeded
    else
        say snaps 'not set up'
    fi
    say snap-leftovers "$(snap list --all 2> /dev/null | awk '/disabled/ { print $1 "_" $3 }' | lines)"
fi

# How long the boot stood still for the network, by the guest's own clock: what waits for it, and for how many seconds.
# One that waits still is given the time to be too long.
waits() {
    for unit in $(systemctl list-units --all --plain --no-legend '*wait-online*' networking.service | awk '{ print $1 }'); do
        tries=0
        while [ "$(systemctl show -p ActiveState --value "$unit")" = activating ] && [ "$tries" -lt 40 ]; do
            tries=$((tries + 1))
            sleep 1
        done
        now=$(awk '{ printf "%d", $1 * 1000000 }' /proc/uptime)
        systemctl show -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic \
            -p InactiveEnterTimestampMonotonic "$unit" | awk -F= -v unit="$unit" -v now="$now" '
            { at[$1] = $2 }
            END {
                begun = at["InactiveExitTimestampMonotonic"]; ended = at["ActiveEnterTimestampMonotonic"]
                if (ended < begun) ended = at["InactiveEnterTimestampMonotonic"]
                if (ended < begun) ended = now
                if (begun > 0) printf "%s:%.1f\n", unit, (ended - begun) / 1000000
            }'
    done
}
say network-waits "$(waits | lines)"
say host-key-prints "$(cat /etc/ssh/ssh_host_*.pub 2> /dev/null | awk '{ print $2 }' | while read -r key; do
    printf '%s' "$key" | sha256sum | cut -c1-16
done | lines)"
