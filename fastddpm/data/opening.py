"""Files and bytes opened as pictures, all of them here: in which formats, how large at most, what is said of others."""

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from fastddpm.data.bad_image import BadImage
from fastddpm.data.deep import Deep, File, deep_of, dicom_of, opened, tiff_of
from fastddpm.data.nclx import Nclx, nclx_in

FORMATS = {
    "PNG": ".png .apng", "JPEG": ".jpg .jpeg .jpe .jfif", "GIF": ".gif", "BMP": ".bmp", "PPM": ".ppm .pgm .pbm .pnm",
    "TIFF": ".tif .tiff", "WEBP": ".webp", "AVIF": ".avif", "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx", "QOI": ".qoi",
    "PSD": ".psd", "SGI": ".sgi .rgb .rgba .bw", "SUN": ".ras", "DDS": ".dds", "ICO": ".ico", "XPM": ".xpm",
    "XBM": ".xbm", "MSP": ".msp", "TGA": ".tga", "PCX": ".pcx", "DIB": ".dib",
}  # fmt: skip
"""Pillow's readers that are used, with the endings of their files. Its others are not: they start a program (EPS), open
what is inside by any reader (IPTC), know a head only (WMF, HDF5, ...), or read films and instruments"""
_KNOWN_AT_ONCE = ("PNG", "JPEG", "GIF", "BMP", "PPM")
"""formats that Pillow loads before the others"""
_BY_ENDING = ("TGA", "PCX", "DIB")
"""formats without a mark at their beginning, which nearly any bytes could be"""
_BY_EXTRAS = ".heic .heif .hif .dcm .dicom"
EXTENSIONS = tuple(" ".join([*FORMATS.values(), _BY_EXTRAS]).split())
SOUGHT = f".png .jpg .webp .tif .gif and {len(EXTENSIONS) - 5} other endings (docs/data.md)"

MAX_PIXELS = 64 * 2**20
"""a larger picture is refused before it is decoded"""
MAX_FILE_BYTES = 5 * MAX_PIXELS
"""a larger file is refused before it is read or unpacked; uncompressed pixels take four, the rest is for metadata"""


def is_image(name: str) -> bool:
    """True for the name of an image file."""
    return name.lower().endswith(EXTENSIONS)


def open_file(path: Path) -> Image.Image:
    """Open an image file; its pixels are decoded later.

    Raises: BadImage: empty, gone, not readable for this user, too large, or in no format of `FORMATS`.
    """
    try:
        check_num_bytes(path.stat().st_size)
        return _open(path, str(path))
    except FileNotFoundError as error:
        raise BadImage("is not there: a link that leads nowhere, or a file that went away") from error
    except PermissionError as error:
        raise BadImage("may not be read by this user: change its permissions") from error


def is_whole_png(path: Path) -> bool:
    """True if all checksums in a PNG file are right; it is not decoded."""
    try:
        open_file(path).verify()
    except (BadImage, OSError, SyntaxError):
        return False
    return True


def open_bytes(content: bytes | io.BytesIO, name: str = "") -> Image.Image:
    """Open the bytes of an image file.

    Args:
        name: its name, where it is known: formats without a mark in their bytes are told by its ending.
    Raises: BadImage: as `open_file`.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    check_num_bytes(file.getbuffer().nbytes)
    return _open(file, name)


def check_num_bytes(count: int) -> None:
    """Raises: BadImage: no file of a picture has so many bytes."""
    if count == 0:
        raise BadImage("is empty (0 bytes)")
    if count > MAX_FILE_BYTES:
        raise BadImage(f"has {count:,} bytes, the limit is {MAX_FILE_BYTES:,}: make it smaller first")


def check_num_pixels(image: Image.Image) -> None:
    """Raises: BadImage: it has more than a picture may have."""
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise BadImage(f"has {image.width}x{image.height} pixels, the limit is {MAX_PIXELS:,}: make it smaller first")


def reason_of(error: Exception) -> BadImage:
    """Reason why a picture cannot be used, of an error of Pillow's."""
    if isinstance(error, Image.DecompressionBombError):  # Pillow's own limit, which comes first
        return BadImage(f"has more pixels than the limit of {MAX_PIXELS:,}: make it smaller first")
    if isinstance(error, UnidentifiedImageError):
        return BadImage("is no image in a format that Pillow reads")
    return BadImage(f"cannot be decoded: {error or type(error).__name__}")


def _open(file: File, name: str) -> Image.Image:
    try:
        image = _identified(file, name)
    except BadImage:
        raise
    except OSError as error:
        if isinstance(error, UnidentifiedImageError) or error.errno is None:
            raise reason_of(error) from error
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on a broken file
        raise reason_of(error) from error
    check_num_pixels(image)
    return image


def _identified(file: File, name: str) -> Image.Image:
    image: Image.Image
    try:
        image = Image.open(file, formats=_KNOWN_AT_ONCE)
    except UnidentifiedImageError:
        image = _of_another_kind(file, name)
    return image if isinstance(image, Deep) else deep_of(image, file) or image


def _of_another_kind(file: File, name: str) -> Image.Image:
    with opened(file) as of:
        head = of.read(132)
    if head[128:] == b"DICM":
        return dicom_of(file)
    if head[4:8] == b"ftyp" and b"hei" in head[8:32]:
        return _heic(file)
    if head[:2] in (b"II", b"MM") and (found := tiff_of(file)) is not None:
        return found
    Image.init()  # loads the other readers; which there are depends on how Pillow was built
    ending = Path(name).suffix.lower()
    others = [kind for kind in FORMATS if kind not in _KNOWN_AT_ONCE and kind in Image.OPEN]
    formats = [kind for kind in others if kind not in _BY_ENDING or ending in FORMATS[kind].split()]
    image = Image.open(file, formats=formats)
    if image.format == "AVIF":
        with opened(file) as of:
            image.info["nclx"] = nclx_in(of)
    return image


def _heic(file: File) -> Image.Image:
    try:
        import pillow_heif
    except ImportError:
        raise BadImage("is a HEIC picture, which takes pip install 'fastddpm[heic]'") from None
    pillow_heif.register_heif_opener()
    image = Image.open(file, formats=("HEIF",))
    if told := image.info.get("nclx_profile"):
        image.info["nclx"] = Nclx(told["color_primaries"], told["transfer_characteristics"])
    return image
