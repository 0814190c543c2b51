"""CRC-32 as zip archives carry it, by the fastest library at hand, and the CRC of two pieces from those of each."""

from __future__ import annotations

import zlib
from typing import Callable

Crc32 = Callable[[memoryview, int], int]

_POLYNOMIAL = 0xEDB88320
"""Of CRC-32 (IEEE 802.3), its bits reversed as zlib keeps them: the highest bit is x^0."""
_ONE = 1 << 31


def _times(one: int, other: int) -> int:
    """Product of two polynomials over GF(2), modulo the CRC's."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = (one << 1) & 0xFFFFFFFF
        other = (other >> 1) ^ _POLYNOMIAL if other & 1 else other >> 1
    return product


def combined(first: int, second: int, size: int) -> int:
    """CRC-32 of two consecutive pieces, of which the second has `size` bytes; as zlib's crc32_combine computes it."""
    power = _ONE >> 8  # x^8: one byte further
    shift = _ONE
    while size:
        if size & 1:
            shift = _times(power, shift)
        power = _times(power, power)
        size >>= 1
    return _times(shift, first) ^ second


crc32: Crc32
"""(bytes, CRC of what came before or 0) -> CRC. Releases the interpreter's lock."""
combine: Callable[[int, int, int], int]

try:
    from zlib_ng import zlib_ng
except ImportError:  # an image with nothing but the standard library: a quarter of the speed
    crc32, combine = zlib.crc32, combined
else:
    crc32, combine = zlib_ng.crc32, zlib_ng.crc32_combine
