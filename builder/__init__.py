"""prebake: from an Ubuntu live-server ISO to a ready disk image, unattended."""

__version__ = "0.1.0"
