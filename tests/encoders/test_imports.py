"""What the encoders import, and what they do without: an index's libraries, and torch until a tower is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.folders import REPO
from tests.support.pictures import draw

# Before anything else: these cannot be imported, as on a machine that only trains or embeds.
HIDDEN = """
import sys

class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("faiss", "lmdb"):
            raise ImportError(f"{name} is hidden")

sys.meta_path.insert(0, Hidden)
"""
EVERY_MODULE = """
import importlib, pkgutil
import brivl_search.encoders as root
names = [one.name for one in pkgutil.walk_packages(root.__path__, root.__name__ + ".")]
for name in names:
    importlib.import_module(name)
assert len(names) > 25, names
"""


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_encoders_does_not_import_torch() -> None:
    heavy = ("torch", "timm", "transformers", "faiss")
    code = f"import sys, brivl_search.encoders; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_module_imports_without_faiss_and_lmdb_and_nothing_from_above() -> None:
    above = (
        "api cli server transfer output ingest search evaluation embedding index",  # of brivl_search
        "timm transformers faiss lmdb sentence_transformers",
    )
    found = python(f"{HIDDEN}{EVERY_MODULE}print(*sys.modules)").split()
    assert "torch" in found
    assert not {f"brivl_search.{name}" for name in above[0].split()} & set(found)
    assert not set(above[1].split()) & set(found)


@pytest.mark.slow
def test_pictures_and_texts_are_embedded_without_faiss_and_lmdb(tiny_checkpoint: Path, tmp_path: Path) -> None:
    draw("red", "ring").save(tmp_path / "ring.jpg")
    code = f"""{HIDDEN}
from brivl_search import load_encoder
encoder = load_encoder(sys.argv[1], device="cpu")
print(encoder.encode_images([sys.argv[2]]).shape, encoder.encode_texts(["dog", "a red dog " * 9]).shape)
"""
    assert python(code, str(tiny_checkpoint), str(tmp_path / "ring.jpg")) == "(1, 32) (2, 32)\n"


def test_the_packages_are_lazy() -> None:
    """`brivl_search.encoders.brivl` was a module: its names are still there, and torch is not loaded for them."""
    code = """
import sys
import brivl_search.encoders as encoders
import brivl_search.encoders.brivl as brivl
assert "brivl_search.encoders.brivl.encoder" not in sys.modules
from brivl_search.encoders.brivl import FEW_TOKENS, LENGTHS, BriVLEncoder, Precision
print(BriVLEncoder.__module__, Precision.__args__, FEW_TOKENS, LENGTHS, "torch" in sys.modules)
assert {"BriVLEncoder", "Precision"} <= set(dir(brivl)) and not hasattr(brivl, "nothing")
assert set(encoders.__all__) <= set(dir(encoders)) and not hasattr(encoders, "nothing")
assert encoders.DEFAULT in encoders.bundled() and encoders.load_encoder.__module__ == "brivl_search.encoders.registry"
"""
    assert python(code) == "brivl_search.encoders.brivl.encoder ('auto', 'fp32', 'bf16') 64 8 False\n"
