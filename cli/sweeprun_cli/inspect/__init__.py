"""What lies on a volume, read and never changed."""
