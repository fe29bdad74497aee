#!/bin/sh
# Puts a file in its place: source, destination, owner, group (may be empty: the owner's own), mode.
set -eu
group=$4
[ -n "$group" ] || group=$(id -gn -- "$3")
exec install -D -o "$3" -g "$group" -m "$5" -- "$1" "$2"
