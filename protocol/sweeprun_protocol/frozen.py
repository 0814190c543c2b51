"""Records: dataclasses that are cheap to define.

dataclasses writes the source of six methods for each class and compiles it. For the fifty records that prepare imports
that was half of its start. Here comparison, hash and text are functions that all of them share; what they do is the
same. Only what is made and compared rarely should be one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses

    def dataclass(*, frozen=False):
        """As dataclasses.dataclass(frozen=frozen)."""

        def define(cls):
            if cls.__doc__ is None:
                cls.__doc__ = cls.__name__  # dataclasses would import and ask inspect for the signature
            made = dataclasses.dataclass(frozen=frozen, eq=False, repr=False)(cls)
            made.__eq__, made.__hash__, made.__repr__ = _equals, _hash if frozen else None, _text
            return made

        return define

    def _values(record):
        return tuple([getattr(record, name) for name in record.__dataclass_fields__])

    def _equals(record, other):
        if other.__class__ is not record.__class__:
            return NotImplemented
        return _values(record) == _values(other)

    def _hash(record):
        return hash(_values(record))

    def _text(record):
        told = ", ".join(f"{name}={getattr(record, name)!r}" for name in record.__dataclass_fields__)
        return f"{record.__class__.__qualname__}({told})"


__all__ = ["dataclass"]
