#!/bin/sh
# Runs one of the class's commands, a file of shell, as root in root's home.
cd /root || exit 1
HOME=/root DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
export HOME DEBIAN_FRONTEND LC_ALL
exec bash -e "$1"
