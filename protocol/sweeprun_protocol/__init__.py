"""Words that the operator, prepare and the trainer share. Standard library only, Python 3.9 and newer, no IO."""

PROTOCOL_VERSION = 1
