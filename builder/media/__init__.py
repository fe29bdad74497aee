"""The medium: which ISO, fetched, verified, remastered. Knows the ISO's bytes, never QEMU."""
