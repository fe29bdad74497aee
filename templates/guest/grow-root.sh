#!/bin/sh
# Gives the root file system the whole disk when the disk has become larger since the last boot, as a virtual
# machine's does when somebody enlarges it. Run early in every boot by grow-root.service.
#
# It does nothing else: no network, no daemon, no log of its own. When nothing is to grow, which is nearly always, it
# reads a few files below /sys and ends. It grows the last partition of the disk if the root is on it (and on it the
# LVM group and the root's volume), then ext4, XFS or Btrfs. Any other layout is left alone.
# Nothing is lost without it: systemctl disable grow-root.service
#
# The first argument, for tests, is a folder that holds proc, sys, dev and var.
set -u
top=${1:-}
unfinished=$top/var/lib/grow-root.unfinished # a power cut may come between the partition and the file system
slack=$((8 * 2048))                          # sectors; less is alignment and the partition table's copy at the end

leave() {
    echo "grow-root: $1"
    exit "${2:-0}"
}
number() {
    value=
    [ -r "$1" ] && read -r value < "$1"
    echo "${value:-0}"
}

# Which device and which file system is the root? Without a fork: the mounts, then /sys.
device='' kind='' source=''
while read -r _ _ where _ place rest; do
    if [ "$place" = / ]; then
        device=$where
        rest=${rest#* - }
        kind=${rest%% *}
        rest=${rest#* }
        source=${rest%% *}
    fi
done < "$top/proc/self/mountinfo"
case $kind in
    ext[234] | xfs) here=$top/sys/dev/block/$device ;;
    btrfs) here=$top/sys/class/block/${source##*/} ;; # its number is none of a device
    *) exit 0 ;;
esac

volume=
if [ -r "$here/dm/uuid" ]; then
    read -r uuid < "$here/dm/uuid"
    case $uuid in LVM-*) ;; *) exit 0 ;; esac # encrypted, or joined in a way of somebody's own
    read -r name < "$here/dm/name"
    volume=$top/dev/mapper/$name
    set -- "$here"/slaves/*
    [ $# -eq 1 ] && [ -e "$1/partition" ] || exit 0
    here=$1
fi
[ -e "$here/partition" ] || exit 0

here=$(cd -P "$here" && pwd) || exit 0
partition=$top/dev/${here##*/}
disk=${here%/*}
count=$(number "$here/partition")
end=$(($(number "$here/start") + $(number "$here/size")))
for other in "$disk"/*/partition; do
    other=${other%/partition}
    [ $(($(number "$other/start") + $(number "$other/size"))) -le "$end" ] || exit 0 # not the last one
done
grows=
[ $(($(number "$disk/size") - end)) -gt "$slack" ] && grows=yes
[ -n "$grows" ] || [ -e "$unfinished" ] || exit 0

: > "$unfinished"
disk=$top/dev/${disk##*/}
if [ -n "$grows" ]; then
    # Both move the copy of the partition table to the disk's new end. growpart says 1 where there is nothing to do.
    if command -v growpart > /dev/null 2>&1 && { growpart "$disk" "$count" || [ $? -eq 1 ]; }; then
        :
    elif echo ', +' | sfdisk -q -N "$count" --no-reread --no-tell-kernel --force "$disk"; then
        partx -u --nr "$count" "$disk"
    else
        leave "partition $count of $disk could not be grown" 1
    fi
fi
if [ -n "$volume" ]; then
    pvresize -q "$partition" || leave "$partition could not be grown as a part of its LVM group" 1
    lvextend -q -l +100%FREE "$volume" || echo "grow-root: $volume has all of its group already"
else
    volume=$partition
fi
case $kind in
    ext[234]) resize2fs "$volume" ;;
    xfs) xfs_growfs / ;;
    btrfs) btrfs filesystem resize max / ;;
esac || leave "the file system on $volume could not be grown" 1
rm -f "$unfinished"
leave "the root file system has grown with its disk $disk"
