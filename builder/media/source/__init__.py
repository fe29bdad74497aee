"""Where media come from: what is published, proven genuine, fetched once and kept."""
