"""Files that claim or unpack to much: decoded in a process of their own, which watches its memory.

Every file is refused, or decoded rightly, within 50 MB above what the process had before.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.odd_images import chunk, encoded, exif, gif, png, tiff

MEGABYTES = 50
SECONDS = 20  # many times what each takes, since other tests may run beside it

DECODE = """
import json, pathlib, sys, time
from pipelines import images
from pipelines.errors import ImageError

def memory(what):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) // 1024

images.decode_image(pathlib.Path(sys.argv[1], "first").read_bytes())  # what is loaded once
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.bomb")):
    data = path.read_bytes()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, started = memory("VmRSS"), time.monotonic()
    try:
        result = str(images.decode_image(data).shape)
    except ImageError as error:
        result = error.kind
    try:
        images.probe(data)
    except ImageError:
        pass
    spent = memory("VmHWM") - before, time.monotonic() - started
    print(json.dumps([path.stem, result, *spent]), flush=True)
"""

SMALL = np.zeros((8, 8), np.uint8)
BIG = (30_000, 30_000)


def header_only(kind: str) -> bytes:
    """A small file whose header claims 30,000 x 30,000 pixels, or as many as its format can."""
    data = bytearray(encoded(Image.fromarray(SMALL).convert("RGB"), kind))
    if kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, *BIG)
    elif kind == "WEBP":
        struct.pack_into("<HH", data, data.index(b"\x9d\x01\x2a") + 3, 16383, 16383)
    elif kind == "BMP":
        struct.pack_into("<ii", data, 18, *BIG)
    elif kind == "JPEG2000":
        struct.pack_into(">II", data, data.index(b"ihdr") + 4, *BIG)
        place = data.index(b"\xff\x4f\xff\x51") + 8
        struct.pack_into(">6I", data, place, *BIG, 0, 0, *BIG)
    return bytes(data)


def canvas_webp() -> bytes:
    """An extended WebP whose canvas is as large as the format allows."""
    plain = encoded(Image.fromarray(SMALL), "WEBP", lossless=True)
    body = b"WEBPVP8X" + struct.pack("<I4x", 10) + b"\xff\xff\xff\xff\xff\x00" + plain[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def one_bit_png(side: int) -> bytes:
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return png(SMALL, 1, size=(side, side), pixels=body)


def text_bomb(name: bytes, start: bytes) -> bytes:
    bomb = zlib.compress(bytes(16 << 20))
    return png(SMALL, before=b"".join(chunk(name, start + bomb) for _ in range(20)))


def tag_bomb(count: int) -> bytes:
    """Every tag claims the whole file for its value: Pillow would hold it as often."""
    head = b"II*\0" + struct.pack("<IH", 8, count)
    tags = b"".join(struct.pack("<HHII", 1000 + tag, 1, 400_000, 8) for tag in range(count))
    return head + tags + bytes(400_000)


def exif_bomb() -> bytes:
    tags = tag_bomb(5000)[:65_000]
    segment = b"\xff\xe1" + struct.pack(">H", len(tags) + 8) + b"Exif\0\0" + tags
    plain = encoded(Image.fromarray(SMALL), "JPEG")
    return plain[:2] + segment * 200 + plain[2:]


def scan_bomb() -> bytes:
    """Thousands of passes over an image of 36 million pixels, in a few kilobytes."""
    data = encoded(Image.fromarray(np.zeros((64, 64, 3), np.uint8)), "JPEG", progressive=True)
    last = [match.start() for match in re.finditer(b"\xff\xda", data)][-1]
    size = data.index(b"\xff\xc2") + 5
    data = data[:size] + struct.pack(">HH", 6000, 6000) + data[size + 4 :]
    scan = data[last : last + 9] + b"\0" + data[last + 10 : -2]  # from the first bit on
    return data[:-2] + scan * 5000 + data[-2:]


def test_bombs_cost_neither_memory_nor_time(tmp_path: Path) -> None:
    comments = encoded(Image.fromarray(SMALL), "JPEG")
    loop = bytearray(tiff([SMALL.tobytes()], (8, 8)))
    struct.pack_into("<I", loop, 10 + 12 * struct.unpack_from("<H", loop, 8)[0], 8)
    chain = b"".join(struct.pack("<HI", 0, 14 + 6 * number) for number in range(1 << 18))
    bombs = {
        "png-1-bit": (one_bit_png(14_000), "too_large"),
        "png-side": (one_bit_png(17_000), "too_large"),
        "png-ztxt": (text_bomb(b"zTXt", b"a\0\0"), "(8, 8, 3)"),
        "png-itxt": (text_bomb(b"iTXt", b"a\0\1\0\0\0"), "(8, 8, 3)"),
        "png-iccp": (text_bomb(b"iCCP", b"a\0\0"), "(8, 8, 3)"),
        "png-pixels": (png(SMALL, pixels=zlib.compress(bytes(64 << 20))), "(8, 8, 3)"),
        "jpeg": (header_only("JPEG"), "too_large"),
        "jpeg-comments": (comments[:2] + b"\xff\xfe\0\2" * 2_000_000 + comments[2:], "hostile"),
        "jpeg-exif": (exif_bomb(), "(8, 8, 3)"),
        "jpeg-scans": (scan_bomb(), "hostile"),
        "webp": (header_only("WEBP"), "too_large"),
        "webp-canvas": (canvas_webp(), "too_large"),
        "bmp": (header_only("BMP"), "too_large"),
        "jpeg2000": (header_only("JPEG2000"), "too_large"),
        "gif": (gif(BIG, [((0, 0), SMALL)], [(0, 0, 0)] * 256), "too_large"),
        "gif-offset": (gif((8, 8), [((65000, 65000), SMALL)], [(0, 0, 0)] * 256), "too_large"),
        "pnm": (b"P6 30000 30000 4095\n", "too_large"),
        "tiff": (tiff([b"x"], BIG, bits=(8, 8, 8), photometric=2), "too_large"),
        "tiff-tags": (tag_bomb(60_000), "hostile"),
        "tiff-fewer-tags": (tag_bomb(900), "not_an_image"),
        "tiff-loop": (bytes(loop), "(8, 8, 3)"),
        "tiff-chain": (bytes(loop[:-64]) + chain, "(8, 8, 3)"),
    }
    (tmp_path / "first").write_bytes(png(SMALL))
    for name, (data, _) in bombs.items():
        assert len(data) < 64 << 20
        (tmp_path / f"{name}.bomb").write_bytes(data)
    command = [sys.executable, "-c", DECODE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name: result for name, result, _, _ in rows} == {
        name: result for name, (_, result) in bombs.items()
    }
    assert {name: grown for name, _, grown, _ in rows if grown > MEGABYTES} == {}
    assert {name: seconds for name, _, _, seconds in rows if seconds > SECONDS} == {}


def test_an_image_costs_what_pillow_takes_and_the_result(tmp_path: Path) -> None:
    """Four bytes a pixel in Pillow and three in the result, with no further copy of either."""
    height, width = 5000, 7000
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    (tmp_path / "first").write_bytes(png(SMALL))
    for orientation in (1, 6):
        note = b"Exif\0\0" + exif(orientation)
        (tmp_path / f"{orientation}.bomb").write_bytes(encoded(picture, "JPEG", exif=note))
    command = [sys.executable, "-c", DECODE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=400)
    rows = [json.loads(line)[:3] for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["1", "(5000, 7000, 3)"], ["6", "(7000, 5000, 3)"]]
    for _, _, grown in rows:
        assert height * width * 6 >> 20 < grown < (height * width * 7 >> 20) + MEGABYTES
