"""First boot, seal, compact, prove: from an installed disk to an image."""
