"""Why the last attempt ended, and what happens next."""
