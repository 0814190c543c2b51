"""What retention left of a run's checkpoints."""

from __future__ import annotations

from sweeprun_protocol.layout import TRASH

from .volume_checkpoints import flip, rewrite


def steps(sweep):
    """Of the checkpoints that lie where they were committed."""
    place = sweep.directory() / "checkpoints"
    return sorted(int(path.name[5:14]) for path in place.rglob("step-*.e*") if path.is_dir())


def in_trash(sweep):
    place = sweep.directory() / TRASH
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def damage(checkpoint):
    path = checkpoint / "model.pt"
    rewrite(path, flip(path.read_bytes(), 1000))


def attempt(sweep, *saves, **request):
    """An attempt that commits these steps and is interrupted."""
    for step in saves:
        sweep.save(step)
    return sweep.prepare(**request)


def three_interruptions(sweep, **request):
    """Bases 200, 400 and 600, with a checkpoint before each that nobody verified; the last prepare with `request`."""
    sweep.prepare()
    attempt(sweep, 100, 200)
    attempt(sweep, 300, 400)
    return attempt(sweep, 500, 600, **request)
