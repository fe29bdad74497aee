#!/bin/sh
# Says what the directories of the root file system take on its disk, the largest first: `unit=` and how many bytes a
# unit has, then lines of a size, a tab and a path. Run as root. Argument: how many seconds it may take.
# What is mounted on it does not count. Where du is missing, or does not end in time, no line says what `/` takes.
seconds=${1:-60}
unit=1
option=-B1
if ! du -B1 -d 0 "$0" > /dev/null 2>&1; then # busybox's
    unit=1024
    option=-k
fi
echo "unit=$unit"
timeout "$seconds" du -x "$option" -d 2 / 2> /dev/null | sort -r -n | head -n 100
exit 0
