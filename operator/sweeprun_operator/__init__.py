"""The operator: kopf doors, pure decisions, builders, the cluster gateway."""
