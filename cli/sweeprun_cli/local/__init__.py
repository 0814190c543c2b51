"""Local mode: processes for pods, a directory for the volume, the operator's own decisions."""
