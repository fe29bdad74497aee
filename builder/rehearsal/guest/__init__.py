"""The small installer that runs inside the rehearsal medium.

It stands in for Ubuntu's (subiquity and curtin): the same places for the answers, the same lines on the
console, the same ways to end. It runs as root in a throw-away guest, with Debian's own Python, and imports
nothing of the package around it.
"""
