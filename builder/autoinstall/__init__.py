"""The answers: what the installer is told."""
