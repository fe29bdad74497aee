#!/bin/sh
# Says which of the packages listed in a file, one a line, are neither installed nor provided by an installed one.
there=$(dpkg-query -W -f '${db:Status-Status} ${Package}, ${Provides}\n' | sed -n 's/^installed //p' |
    tr ',' '\n' | sed 's/^ *//; s/[ (].*//')
missing=0
while read -r name; do
    case $name in
        *^) continue ;; # a task is no package
    esac
    plain=${name%%[=/:]*}
    if ! printf '%s\n' "$there" | grep -qxF -- "$plain"; then
        echo "$plain is not installed"
        missing=1
    fi
done < "$1"
exit "$missing"
