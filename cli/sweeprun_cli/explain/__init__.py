"""What every word means that SweepRun says: the one place for these texts."""
