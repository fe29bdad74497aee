#!/bin/sh
# Installs the snap named first, with the options behind it; waits until snapd has set itself up.
set -eu
name=$1
shift
if ! command -v snap > /dev/null 2>&1; then
    echo "This system has no snapd, so it cannot install the snap $name."
    exit 127
fi
snap wait system seed.loaded
exec snap install "$@" -- "$name"
