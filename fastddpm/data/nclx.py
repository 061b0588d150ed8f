"""Colour tags of AVIF and HEIC (nclx), which stand in for a profile: as the ICC profile that says the same.

Numbers are those of ITU-T H.273; pixels of a picture with such tags mean other colours than sRGB's.
"""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastddpm.data.bad_image import BadImage

_UNKNOWN = 2
_PRIMARIES = {
    **dict.fromkeys((1, _UNKNOWN), ("BT.709", (0.640, 0.330, 0.300, 0.600, 0.150, 0.060))),
    5: ("BT.470 BG", (0.640, 0.330, 0.290, 0.600, 0.150, 0.060)),
    6: ("BT.601", (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    7: ("SMPTE 240M", (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    9: ("BT.2020", (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    12: ("Display P3", (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    22: ("EBU 3213-E", (0.630, 0.340, 0.295, 0.605, 0.155, 0.077)),
}
"""name, and x, y of red, green and blue; white is D65 for all"""
_SRGB = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES = {**dict.fromkeys((1, _UNKNOWN, 6, 13, 14, 15), _SRGB), 4: (0, 2.2), 5: (0, 2.8), 8: (0, 1)}
"""the form of an ICC curve and its numbers; cameras' curves (1, 6, 14, 15) are shown as sRGB's, as viewers do"""
_HDR = {16: "PQ", 18: "HLG"}
_WHITE, _D50 = (0.3127, 0.3290), np.array([0.9642, 1, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


class Nclx(NamedTuple):
    """Numbers of a picture's primaries and curve."""

    primaries: int
    transfer: int

    @property
    def is_srgb(self) -> bool:
        """True if pixels mean what they mean without tags."""
        return self.primaries in (1, _UNKNOWN) and _CURVES.get(self.transfer) is _SRGB

    def __str__(self) -> str:
        return f"nclx {self.primaries}/{self.transfer}"


def nclx_in(file: BinaryIO) -> Nclx | None:
    """Find the tags of an AVIF (ISO/IEC 23008-12, meta/iprp/ipco/colr); None: it has none.

    Raises: BadImage: pictures in it have different ones.
    """
    found = {Nclx(*struct.unpack(">HH", content[4:8])) for content in _tags(file) if content[:4] == b"nclx"}
    told = {one for one in found if one != (_UNKNOWN, _UNKNOWN)}
    if len(told) > 1:
        raise BadImage("has several colour tags (nclx): save the picture alone, in sRGB")
    return next(iter(told), None)


def profile_saying(nclx: Nclx) -> bytes:
    """An ICC profile of the same meaning.

    Raises: BadImage: none can say it, as of HDR.
    """
    if nclx.transfer in _HDR:
        raise BadImage(f"is HDR ({_HDR[nclx.transfer]}, {nclx}): save it in sRGB")
    if nclx.primaries not in _PRIMARIES or nclx.transfer not in _CURVES:
        raise BadImage(f"has colour tags that are not known here ({nclx}): save it in sRGB")
    name, places = _PRIMARIES[nclx.primaries]
    return _profile(f"{nclx} ({name})", places, _CURVES[nclx.transfer])


def _tags(file: BinaryIO) -> Iterator[bytes]:
    """Contents of all `colr` boxes."""
    file.seek(0, 2)
    ways: dict[bytes, int] = {b"meta": 4, b"iprp": 0, b"ipco": 0}
    inside = [(0, file.tell())]
    while inside:
        at, end = inside.pop()
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            size, kind, start = int.from_bytes(head[:4], "big"), head[4:8], 8
            if size == 1:
                size, start = int.from_bytes(head[8:], "big"), 16
            size = size or end - at  # 0: to the end
            if size < start or at + size > end:
                break
            if kind in ways:
                inside.append((at + start + ways[kind], at + size))
            elif kind == b"colr":
                file.seek(at + start)
                yield file.read(min(size - start, 11))
            at += size


def _profile(name: str, places: tuple[float, ...], curve: tuple[float, ...]) -> bytes:
    """Write a display's profile of three primaries and a curve.  (ICC.1:2022, 8.3 and 10)"""
    text = name.encode("utf-16-be")
    of_text = b"mluc" + struct.pack(">5I", 0, 1, 12, 0x656E5553, len(text)) + struct.pack(">I", 28) + text
    of_curve = b"para" + struct.pack(">IHH", 0, int(curve[0]), 0) + _fixed(curve[1:])
    tags = {b"desc": of_text, b"cprt": of_text, b"wtpt": b"XYZ " + bytes(4) + _fixed(_D50)}
    for letter, column in zip(b"rgb", _at_d50(places).T, strict=True):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ " + bytes(4) + _fixed(column)
        tags[bytes([letter]) + b"TRC"] = of_curve
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s28x", start + len(body), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head + _fixed(_D50) + bytes(48) + table + body


def _at_d50(places: tuple[float, ...]) -> np.ndarray:
    """Columns red, green, blue in XYZ, (3, 3), seen under D50 (by Bradford)."""
    xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*zip(places[::2], places[1::2], strict=True), _WHITE)]).T
    columns, white = xyz[:, :3], xyz[:, 3]
    columns = columns * np.linalg.solve(columns, white)
    adapted = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ (adapted[:, None] * (_BRADFORD @ columns)))


def _fixed(values: Any) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))
