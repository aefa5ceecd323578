"""Images that break the process which works on them, for tests; and one that needs no help.

`install` writes a ``sitecustomize.py``, which Python runs at its start if it finds it on its path.
In such a process, and only there, the decoder and the network do to themselves what a picture says
in its first pixels. Elsewhere the same picture is harmless.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

HOOK = """
import importlib.util, os, re, signal, sys, time
from pathlib import Path

HERE = Path(__file__).parent

def hang():
    (HERE / "hanging").touch()
    re.match("(a+)+$", "a" * 64 + "b")  # in C, with the interpreter's lock, for ever

def grow():
    kept = []
    for _ in range(200):  # not without end, should nobody watch
        kept.append(bytearray(b"x") * (16 << 20))
        time.sleep(0.001)

def once():
    flag = HERE / "once"
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)

ACTS = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": hang,
    "grow": grow,
    "once": once,
}

def obey(stage, pixels):
    found = re.match(rb"poison (\\w+) (\\w+);", pixels[0].tobytes())
    if found and found[1].decode() == stage:
        ACTS[found[2].decode()]()

def patch_images(module):
    decode = module.decode_image
    def decode_image(*arguments, **options):
        pixels = decode(*arguments, **options)
        obey("decode", pixels)
        return pixels
    module.decode_image = decode_image

def patch_segmenter(module):
    batch = module.Segmenter.batch
    def poisoned(self, images, *arguments, **options):
        for pixels in images:
            obey("network", pixels)
        return batch(self, images, *arguments, **options)
    module.Segmenter.batch = poisoned

class Finder:
    patches = {"pipelines.images": patch_images, "fcn_model.segmenter": patch_segmenter}

    def find_spec(self, name, path=None, target=None):
        patch = self.patches.pop(name, None)
        if patch is None:
            return None
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            patch(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def install(folder: Path) -> Path:
    """Make a folder which, on the path of a starting Python, poisons it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK)
    return folder


def poisoned(pixels: np.ndarray, stage: str, act: str) -> np.ndarray:
    """The picture (H, W, 3) uint8, which makes ``stage`` (decode, network) do ``act`` to itself.

    Acts: segfault, kill, hang, grow (to 3 GiB), and once (kill, but only the first time).
    ``hang`` leaves a file ``hanging`` in the folder of `install`.
    """
    text = np.frombuffer(f"poison {stage} {act};".encode(), np.uint8)
    changed = pixels.copy()
    changed[0].reshape(-1)[: text.size] = text
    return changed


def endless_jpeg(side: int = 1024, scans: int = 50_000) -> bytes:
    """A valid grey progressive JPEG of ``side`` x ``side`` pixels that takes minutes to decode.

    Each of its scans refines all blocks and says in a few bytes that there is nothing to refine, so
    that the work is blocks times scans. ``side`` is 1024 or more. ITU T.81, annexes B and G.
    """
    blocks = (-(-side // 8)) ** 2

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    def table(kind: int, symbol: int) -> bytes:  # one code of one bit, 0
        return segment(0xC4, bytes([kind, 1, *[0] * 15, symbol]))

    def scan(first: int, last: int, high: int, low: int, bits: str) -> bytes:
        header = bytes([1, 1, 0, first, last, high << 4 | low])
        bits += "1" * (-len(bits) % 8)
        data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
        return segment(0xDA, header) + data

    def nothing_in(count: int) -> str:  # code 0 and 14 bits: 2^14 + that many blocks end here
        runs = -(-count // ((1 << 15) - 1))
        lengths = [count // runs + (index < count % runs) for index in range(runs)]
        return "".join("0" + format(length - (1 << 14), "014b") for length in lengths)

    refining = scan(1, 63, 1, 0, nothing_in(blocks))
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, bytes([0, *[1] * 64])),
            segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])),
            table(0x00, 0),  # each DC difference is zero
            table(0x10, 0xE0),
            scan(0, 0, 0, 0, "0" * blocks),
            scan(1, 63, 0, 1, nothing_in(blocks)),
            *[refining] * scans,
            b"\xff\xd9",
        )
    )
