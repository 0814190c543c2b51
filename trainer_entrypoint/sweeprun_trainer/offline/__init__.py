"""What W&B's client wrote while it was offline, read from the volume and sent."""
