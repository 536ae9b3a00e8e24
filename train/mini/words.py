"""Gives the text tower of a finished checkpoint more words, and keeps what it says of captions.

    python -m train.mini.teachers runs/teachers
    python -m train.mini.words train/recipes/brivl-mini-3-words.toml

Training with photos leaves a text tower with the words of their captions, and it forgets those of its dictionary. Here
it learns them again: pairs of words lie to each other as the sentence encoders say (relational distillation: Park et
al., CVPR 2019), and a word lies near its translation (InfoNCE). Captions hold it in place: their vectors are to stay
(learning without forgetting: Li & Hoiem, ECCV 2016). The image tower stays as it is and is written with it.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.checkpoint import FolderCheckpoint, save_checkpoint
from brivl_search.encoders.brivl.encoder import LENGTHS
from brivl_search.encoders.brivl.image_tower import ImageTower
from brivl_search.encoders.brivl.text_tower import TextTower
from brivl_search.encoders.device import has_fast_bf16, pick_device
from train.data.photos import read_photos
from train.mini.distill import batch_rows
from train.mini.teachers import embed_cached
from train.recipe import WordsRecipe, read_recipe
from train.run.cpu import quicken
from train.run.loop import rate_at, without_model


@dataclass(frozen=True)
class Dictionary:
    """Words and their translations, each with the vector that the sentence encoder of its language gives it.

    Attributes:
        zh, en: entry k of one translates entry k of the other.
        zh_taught, en_taught: (entries, d) centred unit vectors.
    """

    zh: list[str]
    en: list[str]
    zh_taught: Tensor
    en_taught: Tensor


def read_dictionary(recipe: WordsRecipe, base: Path, cache: Path) -> tuple[Dictionary, Dictionary]:
    """The entries to learn from, and every fiftieth of the first dictionary, whose texts are in no other entry.

    Long translations explain rather than translate: those of more than `longest` characters are left out.
    """
    pairs: list[tuple[str, str]] = []
    kept: list[tuple[str, str]] = []
    for at, pages in enumerate(recipe.dictionaries):
        files = [(base / pages.files[language]).read_text(encoding="utf-8").splitlines() for language in ("zh", "en")]
        both = [pair for pair in zip(*files, strict=True) if len(pair[1]) <= recipe.train.longest]
        if not at:
            kept, both = both[::50], [pair for row, pair in enumerate(both) if row % 50]
        pairs += both * pages.repeat
    zh, en = {pair[0] for pair in kept}, {pair[1] for pair in kept}
    pairs = [pair for pair in pairs if pair[0] not in zh and pair[1] not in en]
    kept = [*{en: (zh, en) for zh, en in {zh: (zh, en) for zh, en in kept}.values()}.values()]
    teachers, found = {teacher.name: (base / teacher.folder).resolve() for teacher in recipe.teachers}, []
    centres: dict[int, Tensor] = {}
    for some in (pairs, kept):
        taught = []
        for side, name in enumerate(("zh", "en")):
            unique = sorted({pair[side] for pair in some})
            number = {text: row for row, text in enumerate(unique)}
            vectors = torch.from_numpy(embed_cached(teachers[name], unique, cache))
            centres.setdefault(side, vectors.mean(0))
            taught.append(F.normalize(vectors - centres[side], dim=1)[[number[pair[side]] for pair in some]])
        found.append(Dictionary([pair[0] for pair in some], [pair[1] for pair in some], taught[0], taught[1]))
    return found[0], found[1]


class Reader:
    """A text tower and its tokenizer: texts → vectors."""

    def __init__(self, checkpoint: FolderCheckpoint, *, bf16: bool) -> None:
        self.tower = TextTower(checkpoint.config.text, checkpoint.config.dim)
        checkpoint.fill("text", self.tower)
        self.tokenizer, self.bf16 = checkpoint.tokenizer(), bf16

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """float32 (texts, dim), unit length; with gradients where they are on."""
        ids = self.tokenizer.ids(list(texts))
        padded, mask = (torch.from_numpy(a) for a in self.tokenizer.batch(ids, multiple=LENGTHS))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            vectors: Tensor = self.tower(padded, mask)
        return vectors.float()

    @torch.inference_mode()
    def all(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """The same of many texts, without dropout."""
        learning = self.tower.training
        self.tower.eval()
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        out = torch.empty(len(texts), self.tower.head.fc2.out_features)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            out[rows] = self([texts[at] for at in rows])
        self.tower.train(learning)
        return out


def relation_loss(said: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """KL(teacher's ‖ tower's) of how like each text of a batch is to each other, mean over the batch.

    Args:
        said: (B, dim), unit vectors of the tower; centred here.
        taught: (B, d), centred unit vectors of the teacher.
        temperature: τ of both softmaxes.
    """
    centred = F.normalize(said - said.mean(0), dim=1)
    itself = torch.eye(len(said), dtype=torch.bool)
    scores = ((v @ v.T / temperature).masked_fill(itself, -1e4).log_softmax(1) for v in (centred, taught))
    given, wanted = scores
    return F.kl_div(given, wanted, reduction="batchmean", log_target=True)


def translation_loss(zh: Tensor, en: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Both directions of InfoNCE between (B, dim) and (B, dim); `same` (B, B): entries that are no negatives."""
    scores = (zh @ en.T / temperature).masked_fill(same & ~torch.eye(len(zh), dtype=torch.bool), -1e4)
    target = torch.arange(len(zh))
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def same_words(zh: Sequence[str], en: Sequence[str]) -> Tensor:
    """bool (B, B): entries that share a word in either language."""
    columns = [np.array(side) for side in (zh, en)]
    return torch.from_numpy(np.logical_or.reduce([c[:, None] == c[None] for c in columns]))


def examine(reader: Reader, exam: Dictionary, captions: Sequence[str], were: Tensor) -> dict[str, float]:
    """How many kept entries lie nearest to their translation (%), and the mean cosine of captions to what they were."""
    zh, en = reader.all(exam.zh), reader.all(exam.en)
    own = torch.arange(len(zh))
    return {
        "zh_en": round(float((zh @ en.T).argmax(1).eq(own).float().mean()) * 100, 1),
        "en_zh": round(float((en @ zh.T).argmax(1).eq(own).float().mean()) * 100, 1),
        "captions": round(float((reader.all(captions) * were).sum(1).mean()), 4),
    }


def train(recipe: WordsRecipe, base: Path) -> None:
    """The whole run; writes checkpoint/ and log.jsonl into the run's folder."""
    cfg, run = recipe.train, Path(recipe.run)
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    device = pick_device(cfg.device)
    bf16 = has_fast_bf16(device) if cfg.bf16 is None else cfg.bf16
    quicken()
    checkpoint = FolderCheckpoint((base / str(recipe.init.checkpoint)).resolve())
    reader = Reader(checkpoint, bf16=bf16)
    photos, cache = read_photos(recipe.data, base), Path(recipe.cache or run)
    captions = [*dict.fromkeys(text for p in photos.train for group in p.captions.values() for text in group)]
    asked = [*dict.fromkeys(text for p in photos.val for group in p.captions.values() for text in group)]
    taught, exam = read_dictionary(recipe, base, cache)
    were, asked_were = reader.all(captions), reader.all(asked)
    lengths = np.array([len(text) for text in taught.en])
    decayed = [p for n, p in reader.tower.named_parameters() if p.ndim > 1 and "embeddings" not in n]
    rest = [p for n, p in reader.tower.named_parameters() if not (p.ndim > 1 and "embeddings" not in n)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=cfg.lr, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    slow = copy.deepcopy(reader)
    with (run / "log.jsonl").open("w", buffering=1) as log:
        log.write(json.dumps({"step": 0, **examine(reader, exam, asked, asked_were)}) + "\n")
        since = time.perf_counter()
        for step in range(cfg.steps):
            for group in optimizer.param_groups:
                group["lr"] = cfg.lr * rate_at(step, cfg.steps, cfg.warmup)
            rng = np.random.default_rng((cfg.seed, 2, step))
            reader.tower.train()
            rows = batch_rows(step, lengths, cfg.batch, cfg.seed)
            zh, en = ([side[row] for row in rows] for side in (taught.zh, taught.en))
            said_zh, said_en = reader(zh), reader(en)
            told = rng.integers(len(captions), size=cfg.captions)
            held = 1 - (reader([captions[at] for at in told]) * were[told]).sum(1).mean()
            relations = torch.stack(
                [
                    relation_loss(said_zh, taught.zh_taught[rows], cfg.temperature),
                    relation_loss(said_en, taught.en_taught[rows], cfg.temperature),
                    relation_loss(said_zh, taught.en_taught[rows], cfg.temperature),
                ]
            ).mean()
            near = translation_loss(said_zh, said_en, same_words(zh, en), cfg.temperature)
            loss = cfg.relation_weight * relations + cfg.translation_weight * near + cfg.keep_weight * held
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(reader.tower.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                momentum = min(cfg.average, (1 + step) / (10 + step))
                for kept, new in zip(slow.tower.parameters(), reader.tower.parameters(), strict=True):
                    kept.lerp_(new, 1 - momentum)
            if (done := step + 1) % cfg.eval_every == 0 or done == cfg.steps or done % 20 == 0:
                parts = {"relations": relations, "translations": near, "captions": held}
                line: dict[str, object] = {"step": done, "s": round((time.perf_counter() - since) / done, 2)}
                line |= {name: round(float(value.detach()), 4) for name, value in parts.items()}
                if done % cfg.eval_every == 0 or done == cfg.steps:
                    line["kept"] = examine(slow, exam, asked, asked_were)
                    save(run / "checkpoint", checkpoint, slow.tower, recipe, done)
                log.write(json.dumps(line) + "\n")
    print(f"{run / 'checkpoint'}: after {cfg.steps} steps")


def save(folder: Path, start: FolderCheckpoint, text: TextTower, recipe: WordsRecipe, step: int) -> None:
    """The checkpoint of the start with another text tower, and without what was fitted to the old one."""
    image = ImageTower(start.config.image, start.config.dim)
    start.fill("image", image)
    facts = {"recipe": without_model(recipe.raw), "step": step}
    save_checkpoint(folder, replace(start.config, calibration=None, training=facts), image, text, start.tokenizer())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    args = parser.parse_args(argv)
    train(read_recipe(args.recipe, args.set, WordsRecipe), args.recipe.resolve().parent)


if __name__ == "__main__":
    main()
