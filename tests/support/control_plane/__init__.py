"""A real kube-apiserver with its etcd, as two processes that end with the test session.

No controllers run: nothing collects garbage, fills a Job with pods or finishes the deletion of a namespace. Tests play
those parts themselves.
"""

from .running import ControlPlane, running

__all__ = ["ControlPlane", "running"]
