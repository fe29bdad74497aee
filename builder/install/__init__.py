"""Watch until the reboot, tell success from failure, keep the evidence."""
