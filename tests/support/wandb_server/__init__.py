"""A W&B server for tests, and the reader of its journal."""

from .journal import Journal, Run, Writer
from .running import RunningServer, serve

__all__ = ["Journal", "Run", "RunningServer", "Writer", "serve"]
