"""Whether the chunks of tensors cover them: no hole, no overlap, nothing outside. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.reasons import RefusalReason

from . import Refused
from .dcp_saved import Chunk, Saved, Shape, Tensor, shown

MAX_CORNERS = 1 << 24
"""Of all chunks of a checkpoint together, in the dimensions in which its tensors are cut."""


def check_tiling(saves: Sequence[Saved]) -> None:
    """Chunks of every tensor cover its shape. Ranks that saved on their own have parts of one tensor, or one each.

    Raises Refused: STRUCTURE, LIMIT_EXCEEDED.
    """
    corners = Corners()
    for key, parts in _by_key(saves):
        for tensor in _joined(parts):
            if not corners.tiles(tensor.shape, tensor.chunks):
                text = f"the chunks of {shown(key)} leave holes, overlap or lie outside of its shape"
                raise Refused(RefusalReason.STRUCTURE, f"{text} {list(tensor.shape)}")


def _by_key(saves: Sequence[Saved]) -> Iterator[tuple[str, list[Tensor]]]:
    if len(saves) == 1:
        for number, key in enumerate(saves[0].tensors):
            yield key, [saves[0].tensor(number)]
        return
    places: dict[str, list[tuple[int, int]]] = {}
    for place, saved in enumerate(saves):
        for number, key in enumerate(saved.tensors):
            places.setdefault(key, []).append((place, number))
    for key, parts in places.items():
        yield key, [saves[place].tensor(number) for place, number in parts]


def _joined(parts: list[Tensor]) -> list[Tensor]:
    if len(parts) == 1 or len({part.shape for part in parts}) > 1:
        return parts
    chunks = list(dict.fromkeys(chunk for part in parts for chunk in part.chunks))
    return [Tensor(parts[0].shape, chunks)]


@dataclass()
class Corners:
    """How many corners of chunks may still be looked at."""

    left: int = MAX_CORNERS

    def tiles(self, shape: Shape, chunks: list[Chunk]) -> bool:
        """Whether the chunks cover the shape exactly: no hole, no overlap, nothing outside.

        The alternating sum of the corners of a box determines it; where those of all chunks add up to those of the
        whole, so do the chunks. Linear in their number. Raises Refused: LIMIT_EXCEEDED.
        """
        if len(chunks) == 1 and chunks[0][1] == shape and not any(chunks[0][0]):
            return True
        solid = [chunk for chunk in chunks if 0 not in chunk[1]]
        if 0 in shape:
            return not solid
        if len(solid) == 1:
            return solid[0][1] == shape and not any(solid[0][0])
        cut = [axis for axis, extent in enumerate(shape) if any(sizes[axis] != extent for _, sizes in solid)]
        whole = [axis for axis in range(len(shape)) if axis not in cut]
        if any(offsets[axis] for offsets, _ in solid for axis in whole) or not cut:
            return False
        self.left -= (len(solid) + 1) << len(cut)
        if self.left < 0:
            text = f"{len(solid)} chunks that are cut in {len(cut)} dimensions: more than any save of torch has"
            raise Refused(RefusalReason.LIMIT_EXCEEDED, text)
        if len(cut) == 1:
            return _follow_each_other(shape[cut[0]], [(offsets[cut[0]], sizes[cut[0]]) for offsets, sizes in solid])
        sums: dict[Shape, int] = {}
        _add_corners(sums, cut, ((0,) * len(shape), shape), -1)
        for chunk in solid:
            _add_corners(sums, cut, chunk, 1)
        return not any(sums.values())


def _follow_each_other(extent: int, pieces: list[tuple[int, int]]) -> bool:
    end = 0
    for offset, size in sorted(pieces):
        if offset != end:
            return False
        end += size
    return end == extent


def _add_corners(sums: dict[Shape, int], axes: list[int], chunk: Chunk, sign: int) -> None:
    offsets, sizes = chunk
    sides = [((offsets[axis], 1), (offsets[axis] + sizes[axis], -1)) for axis in axes]
    for corner in product(*sides):
        place = tuple(at for at, _ in corner)
        sums[place] = sums.get(place, 0) + sign * math.prod(each for _, each in corner)
