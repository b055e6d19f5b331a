"""Changes of bytes for tests of files that are damaged or unusual."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

from hypothesis import strategies as st

Change = Callable[[bytes], bytes]


def bytes_changed(places: list[tuple[float, int]]) -> Change:
    """Return a change of single bytes, at shares of the length."""

    def change(content: bytes) -> bytes:
        found = bytearray(content)
        for share, value in places:
            found[int(share * (len(found) - 1))] = value
        return bytes(found)

    return change


def cut(first: float, last: float) -> Change:
    """Return a change that takes a range of bytes out."""

    def change(content: bytes) -> bytes:
        start, end = (int(share * len(content)) for share in sorted((first, last)))
        return content[:start] + content[end:]

    return change


def ended(share: float) -> Change:
    """Return a change that takes the end off."""
    return lambda content: content[: int(share * len(content))]


def zipped_again(compression: int, order: int, padding: int) -> Change:
    """Return a change that writes the entries of a zip archive in another order, compressed or not."""

    def change(content: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", compression) as new:
            entries = old.infolist()
            first = [one for one in entries if one.filename.endswith("data.pkl")]
            others = [one for one in entries if one not in first]
            turned = others[order % len(others) :] + others[: order % len(others)]
            for entry in [*first, *(turned[::-1] if order % 2 else turned)]:
                info = zipfile.ZipInfo(entry.filename)
                info.compress_type, info.extra = (
                    compression,
                    b"FB" + padding.to_bytes(2, "little") + b"Z" * padding,
                )
                new.writestr(info, old.read(entry))
        return stream.getvalue()

    return change


SHARE = st.floats(0, 1, exclude_max=True)
DAMAGE = st.one_of(
    st.lists(st.tuples(SHARE, st.integers(0, 255)), min_size=1, max_size=8).map(bytes_changed),
    st.tuples(SHARE, SHARE).map(lambda ends: cut(*ends)),
    SHARE.map(ended),
)
ZIPPED = st.builds(
    zipped_again,
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.integers(0, 9),
    st.integers(0, 70),
)
