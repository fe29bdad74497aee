#!/bin/sh
# Puts a file in its place: source, destination, owner, group (may be empty: the owner's own), mode.
# Folders that are missing on the way are root's, but within the owner's home the owner's.
set -eu
group=$4
[ -n "$group" ] || group=$(id -gn -- "$3")
home=$(getent passwd -- "$3" | cut -d: -f6)
parent=${2%/*}
case $parent/ in
    "${home:-/nowhere}"/*)
        missing=$parent
        while [ ! -d "$missing" ]; do
            set -- "$@" "$missing"
            missing=${missing%/*}
        done
        count=$#
        while [ "$count" -gt 5 ]; do # the outermost first
            eval "folder=\${$count}"
            # shellcheck disable=SC2154 # eval sets it
            install -d -o "$3" -g "$group" -- "$folder"
            count=$((count - 1))
        done
        ;;
esac
exec install -D -o "$3" -g "$group" -m "$5" -- "$1" "$2"
