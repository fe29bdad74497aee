#!/bin/sh
# Frees what the packages linux-firmware* take if it is more than a budget in MiB, the first argument ("keep": never).
# Nothing of it is for a virtual machine: it is for graphics and wireless cards.
#
# The packages stay, only their files go. Ubuntu's kernel depends on them (linux-image-generic), so to remove them
# would remove what brings the next kernel; and an upgrade would bring them back. dpkg is told instead not to unpack
# such files, which upgrades and newly split packages obey. Microcode, the wireless regulations and what a kernel's
# own packages bring (/lib/firmware/VERSION) are other packages' and stay.
# The second argument, for tests, is a folder that stands for /.
set -u
budget=$1
top=${2:-}
excludes=$top/etc/dpkg/dpkg.cfg.d/no-firmware

[ "$budget" != keep ] || exit 0
if [ -n "$top" ]; then
    query() { dpkg-query --admindir="$top/var/lib/dpkg" "$@"; }
else
    query() { dpkg-query "$@"; }
fi
# shellcheck disable=SC2016 # dpkg's, not the shell's
names=$(query -W -f '${db:Status-Status} ${Package}\n' 'linux-firmware*' 2> /dev/null | sed -n 's/^installed //p')
[ -n "$names" ] || exit 0

files() {
    # shellcheck disable=SC2086 # names of packages have no blanks
    query -L $names | grep -E '^(/usr)?/lib/firmware/.' | grep -vE '/firmware/(amd-ucode|intel-ucode|regulatory\.db)' |
        while read -r path; do
            [ ! -f "$top$path" ] && [ ! -L "$top$path" ] || printf '%s\0' "$top$path"
        done
}
kib=$(files | du -k -c --files0-from=- 2> /dev/null | tail -n 1 | cut -f1)
mib=$((${kib:-0} / 1024))
if [ ! -e "$excludes" ]; then
    [ "$mib" -gt "$budget" ] || exit 0
    mkdir -p "${excludes%/*}"
    cat > "$excludes" << 'CFG'
# A virtual machine needs no firmware for cards. To have it back, as for a card that is handed through to the machine:
# remove this file, then: apt-get install --reinstall linux-firmware
path-exclude=/lib/firmware/*
path-exclude=/usr/lib/firmware/*
path-include=/lib/firmware/[0-9]*
path-include=/usr/lib/firmware/[0-9]*
path-include=*/firmware/amd-ucode*
path-include=*/firmware/intel-ucode*
path-include=*/firmware/regulatory.db*
CFG
fi
files | xargs -0 -r rm -f --
for folder in "$top/usr/lib/firmware" "$top/lib/firmware"; do
    [ ! -d "$folder" ] || find "$folder/" -mindepth 1 -depth -type d -empty -delete
done
[ "$mib" -eq 0 ] || echo "note: firmware for cards that no virtual machine has: $mib MiB freed"
exit 0
