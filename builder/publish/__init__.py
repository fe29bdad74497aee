"""What lies beside the image: manifest and checksums."""
