"""A machine and its console: accelerators, firmware, QEMU, QMP, the serial line. Knows nothing of Ubuntu."""
