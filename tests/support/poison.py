"""Images that break the process which works on them, for tests.

`install` writes a ``sitecustomize.py``, which Python runs at its start if it finds it on its path.
In such a process, and only there, the decoder and the network do to themselves what a picture says
in its first pixels. Elsewhere the same picture is harmless.
"""

from __future__ import annotations

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

def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)  # another thread may handle it, and take its time

ACTS = {
    "segfault": segfault,
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
