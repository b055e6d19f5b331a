"""Name what a file is that is called an image and is none, by how it begins.

Files that are called images are often something else: an error page that was saved as "a.jpg", a pointer of
Git LFS, a drawing. The names are for messages and affect no result, so this module is in no fingerprint.
"""

from __future__ import annotations

from attrib_core.storage import file_kinds
from attrib_core.storage.file_kinds import Kind

_BEGINNINGS = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (b"AT&TFORM", "a DjVu document"),
    (b"{\\rtf", "an RTF document"),
    (b"8BPS", "a Photoshop file (PSD)"),
    (b"gimp xcf", "a GIMP file (XCF)"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"BPG\xfb", "BPG"),
    (b"qoif", "QOI"),
    (b"DDS ", "a texture (DDS)"),
    (b"BLP1", "a texture (BLP)"),
    (b"BLP2", "a texture (BLP)"),
    (b"FTEX", "a texture (FTEX)"),
    (b"\xabKTX", "a texture (KTX)"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)"),
    (b"\0\0\2\0\0\0\0\0", "TGA"),  # of no fixed bytes, but without a name and a palette as most are
    (b"\0\0\3\0\0\0\0\0", "TGA"),
    (b"\0\0\x0a\0\0\0\0\0", "TGA"),
    (b"\0\0\2\0", "a Windows cursor (CUR)"),
    (b"icns", "an Apple icon (ICNS)"),
    (b"\x01\xda\0", "SGI"),
    (b"\x01\xda\1", "SGI"),
    (b"\x59\xa6\x6a\x95", "a Sun raster file"),
    (b"\x0a\x05\x01", "PCX"),
    (b"#define ", "XBM, or the source of a program"),
    (b"/* XPM */", "XPM"),
    (b"\0\x05\x16\x07", "a macOS resource file (._ in front of the image's name)"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (Windows)"),
    (b"GRIB", "GRIB"),
    (b"BUFR", "BUFR"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (b"FLV\1", "a video (FLV)"),
    (b"\0\0\1\xba", "a video (MPEG)"),
    (b"\0\0\1\xb3", "a video (MPEG)"),
    (b"OggS", "Ogg audio or video"),
    (b"ID3", "audio (MP3)"),
    (b"fLaC", "audio (FLAC)"),
    (b"data:image/", "an image in a data URI (decode its base64)"),
    (b"iVBORw0KGgo", "a PNG in base64 (decode it)"),
    (b"/9j/4", "a JPEG in base64 (decode it)"),
    (b"\x89PNG\r\n\x1a\n", "a damaged PNG"),
    (b"\x89PNG", "a PNG that was changed in a transfer as text"),
    (b"\xff\xd8", "a damaged JPEG"),
    (b"GIF8", "a damaged GIF"),
    (b"BM", "a damaged BMP, or one of a rare kind"),
    (b"II*\0", "a TIFF that is damaged or of a kind that is not read"),
    (b"MM\0*", "a TIFF that is damaged or of a kind that is not read"),
    (b"II+\0", "a BigTIFF that is damaged or of a kind that is not read"),
    (b"MM\0+", "a BigTIFF that is damaged or of a kind that is not read"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\1\0", "a Windows icon (ICO)"),
)
_BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC",
    b"mif1": "HEIC or another HEIF", b"msf1": "HEIC or another HEIF", b"crx ": "a camera's raw file (CR3)",
    b"avif": "a damaged AVIF", b"avis": "a damaged AVIF", b"jp2 ": "JPEG 2000",
}  # fmt: skip
_TEXTS = (Kind.TEXT, Kind.HTML, Kind.XML, Kind.JSON, Kind.UNKNOWN)
_RIFF = {
    b"WEBP": "a damaged WebP",
    b"AVI ": "a video (AVI)",
    b"WAVE": "audio (WAV)",
    b"ACON": "a cursor (ANI)",
}


def describe(data: bytes) -> str | None:
    """Name what bytes that could not be opened as an image are, by how they begin; None where that says nothing."""
    if data and not data.strip(b"\0"):
        return "zeros alone (a download or copy that did not finish?)"
    for beginning, name in _BEGINNINGS:
        if data.startswith(beginning):
            return name
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a video (MP4 or QuickTime)")
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12])
    if data[40:44] == b" EMF":
        return "a Windows metafile (EMF)"
    kind = file_kinds.of_bytes(data[: file_kinds.HEAD])
    return _describe_text(data[:4096]) if kind in _TEXTS else kind.value


def _describe_text(start: bytes) -> str | None:
    """Name a text by its first bytes; None if they are none."""
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = start.decode("utf-16" if wide else "utf-8-sig", "replace").strip()
    if sum(letter.isprintable() or letter.isspace() for letter in text[:200]) < 0.95 * len(text[:200]):
        return None
    lower = text.lower()
    if lower.startswith(("<!doctype html", "<html", "<head", "<body")) or "<html" in lower[:1000]:
        return "an HTML page (the server's error page?)"
    if "<svg" in lower:
        return "an SVG drawing"
    if lower.startswith("<?xml"):
        return "XML"
    if not text or "\ufffd" in text[:200]:
        return None
    return f"text ({' '.join(text.split())[:40]!r})"
