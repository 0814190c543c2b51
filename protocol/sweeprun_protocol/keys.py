"""Labels and annotations that SweepRun writes on its children."""

from __future__ import annotations

GROUP = "sweeprun.dev"

NAME_LABEL = f"{GROUP}/name"
"""The owner's name."""
UID_LABEL = f"{GROUP}/uid"
"""The owner's UID: the server-side selector of everything that belongs to one SweepRun object."""
ROLE_LABEL = f"{GROUP}/role"
"""What the child is for: `prepare`, `init`, `survey` or `attempt`."""
NUMBER_LABEL = f"{GROUP}/number"
"""Number of the prepare or attempt that the child was made for."""
SWEEP_LABEL = f"{GROUP}/sweep"
"""Name of the sweep."""

ROLE_PREPARE = "prepare"
ROLE_INIT = "init"
ROLE_SURVEY = "survey"
ROLE_ATTEMPT = "attempt"

EPOCH_ANNOTATION = f"{GROUP}/epoch"
"""The attempt's epoch on the volume."""
TEMPLATE_HASH_ANNOTATION = f"{GROUP}/template-hash"
"""Hash of spec.template that the attempt was made from; history names it too."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
"""`sweeprun` on everything that the operator makes."""
MANAGED_BY = "sweeprun"
