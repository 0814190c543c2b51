"""The real Kueue beside a real API server: it suspends, admits and preempts; tests play the pods of its jobs."""

from .queues import Queue
from .running import Kueue, running

__all__ = ["Kueue", "Queue", "running"]
