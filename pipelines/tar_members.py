"""The regular files of an uncompressed tar in memory, read to its end mark or refused.

An own reader of 512-byte blocks, because the common ones end silently at a damaged header, follow
compression, allocate what a sparse member claims, or can be sent into an endless loop by a negative
size. Here a cut archive is an error, never a shorter list, and so is content that a header hides.
Names are only ever keys, never paths. Format: POSIX.1-2001 ustar and pax, with GNU's long names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipelines.errors import ShardError

MAX_MEMBERS = 200_000
MAX_MEMBER_BYTES = 256 << 20
MAX_NAME_BYTES = 512
MAX_EXTENDED_BYTES = 1 << 20

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_SIZE_DIGITS = 20
_PAX_LINE = re.compile(rb"([0-9]{1,9}) ([^=\n]+)=")
_REGULAR = (b"0", b"\0", b"7")
_FOLDER, _GLOBAL, _LINK_NAME = b"5", b"g", b"K"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}
_PACKED = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\0": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PK\3\4": "a zip archive",
}


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every regular file. Raises ShardError, which names the member or byte."""
    offset = 0
    extended: dict[str, bytes] = {}
    for _ in range(MAX_MEMBERS):
        header = data[offset : offset + _BLOCK]
        if header == _ZEROS:
            _check_end(data, offset)
            return
        _check_header(header, offset)
        kind, start = header[156:157], offset + _BLOCK
        size = int(extended.get("size", b"") or _number(header[124:136], offset))
        content = _content(data, start, size, offset)
        offset = start + -(-size // _BLOCK) * _BLOCK
        if kind == b"x":
            extended |= _pax(content, start)
        elif kind == b"L":
            extended["path"] = _limited(content, start).partition(b"\0")[0]
        elif kind == _GLOBAL:
            _check_global(content, start)
        elif kind != _LINK_NAME:
            name = _name(extended.get("path") or _short_name(header))
            extended = {}
            if _is_file(kind, name, size):
                yield name, content
    raise ShardError(f"it has more than {MAX_MEMBERS} members; split it into smaller shards")


def _is_file(kind: bytes, name: str, size: int) -> bool:
    """Whether a member is a regular file, and not a folder. Raises ShardError for all else."""
    if kind == _FOLDER or (kind in _REGULAR and name.endswith("/")):
        if size:
            raise ShardError(f"member {name!r} is a folder with {size} bytes, which may hide files")
        return False
    if kind not in _REGULAR:
        what = _REFUSED.get(kind, f"of unknown type {kind!r}")
        raise ShardError(f"member {name!r} is {what}; pack it anew with plain files only")
    return True


def _check_header(header: bytes, offset: int) -> None:
    packed = next((what for start, what in _PACKED.items() if header.startswith(start)), None)
    if offset == 0 and packed:
        raise ShardError(f"it is {packed}; unpack it to a plain .tar")
    if len(header) < _BLOCK:
        raise ShardError(f"it is cut off at byte {offset + len(header)}: there is no end mark")
    blanked = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(blanked)
    negative = sum(byte > 127 for byte in blanked) if not blanked.isascii() else 0
    if _number(header[148:156], offset) not in (unsigned, unsigned - 256 * negative):
        raise ShardError(f"it is no tar, or damaged: wrong header checksum at byte {offset}")


def _check_end(data: bytes, offset: int) -> None:
    if data.count(0, offset) != len(data) - offset:
        raise ShardError(
            f"there is data after the end mark at byte {offset}; do not concatenate tars"
        )


def _number(field: bytes, offset: int) -> int:
    """A header's number: octal text, or GNU's binary form for what does not fit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise ShardError(f"it is no tar, or damaged: wrong number at byte {offset}") from None


def _content(data: bytes, start: int, size: int, offset: int) -> bytes:
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise ShardError(
            f"the member at byte {offset} claims {size} bytes; at most {MAX_MEMBER_BYTES} are read"
        )
    if start + size > len(data):
        raise ShardError(f"it is cut off at byte {len(data)}, inside the member at byte {offset}")
    return data[start : start + size]


def _pax(content: bytes, offset: int) -> dict[str, bytes]:
    """The path and size of a pax header: lines ``LENGTH KEY=VALUE``, each counting itself."""
    content = _limited(content, offset)
    found: dict[str, bytes] = {}
    position = 0
    while position < len(content):
        match = _PAX_LINE.match(content, position)
        end = position + int(match[1]) if match else 0
        if match is None or end <= match.end() or content[end - 1 : end] != b"\n":
            raise ShardError(f"the extended header at byte {offset} is damaged")
        found[match[2].decode(errors="replace")] = content[match.end() : end - 1]
        position = end
    size = found.get("size", b"0")
    if not size.isdigit() or len(size) > _SIZE_DIGITS:
        raise ShardError(f"the extended header at byte {offset} has a wrong size")
    if any(key.startswith("GNU.sparse") for key in found):
        raise ShardError(f"the member at byte {offset} is a sparse file; pack it anew without")
    return {key: found[key] for key in ("path", "size") if key in found}


def _check_global(content: bytes, offset: int) -> None:
    """A global header may comment, but not say what the members after it are."""
    if _pax(content, offset):
        raise ShardError(f"the global header at byte {offset} names or sizes all that follow")


def _limited(content: bytes, offset: int) -> bytes:
    if len(content) > MAX_EXTENDED_BYTES:
        raise ShardError(f"the extended header at byte {offset} is {len(content)} bytes long")
    return content


def _short_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _name(raw: bytes) -> str:
    """A member's name as a key. A leading ``./`` is dropped, as ``tar cf x.tar .`` writes it."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise ShardError(f"the member name {raw[:80]!r} is not UTF-8") from None
    while name.startswith("./"):
        name = name[2:]
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise ShardError(f"the member name {name[:80]!r} is absolute or leads out of the archive")
    if len(raw) > MAX_NAME_BYTES:
        raise ShardError(f"the member name {name[:80]!r}... is {len(raw)} bytes long")
    return name
