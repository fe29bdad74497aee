#!/bin/sh
# Installs the packages listed in a file, one a line. A first boot may still hold apt's lock; a mirror may be busy.
set -eu
export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_MODE=a
tries=0
until apt-get -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 update; do
    tries=$((tries + 1))
    [ "$tries" -lt 3 ] || exit 100
    sleep $((tries * 5))
done
set -f
# shellcheck disable=SC2046 # names of packages have no blanks
set -- $(cat "$1")
exec apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install -- "$@"
