"""What a captioner is worth, beside the caption of the nearest training photo, on photos that it was not trained on.

    python -m train.captions.measure runs/brivl-mini-captions/captioner
    python -m train.captions.measure hf:FOLDER --lang en     # a captioner of transformers, on the same photos

Rows of the table: the captioner as its users have it; the first caption of the nearest training photo by the towers'
vectors, and that of its captions which the towers find nearest to the picture; and a person: each photo's first caption
against its other ones, one reference fewer. Beside BLEU, ROUGE-L and CIDEr (`train.captions.score`) stand: R@1, how
often the towers find a caption's own photo among all measured ones; how many captions differ; and how many are word for
word a training caption.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brivl_search.corpus.images import load_pixels
from brivl_search.encoders.base import Origin
from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.encoders.captioners import load_captioner
from brivl_search.encoders.captioning import ranked
from train.captions.recipe import CaptionRecipe
from train.captions.score import figures, tokens
from train.model.sizes import checkpoint_folder
from train.one_tower.lessons import Lessons
from train.recipe import read_recipe
from train.run.show import Bar

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "brivl-mini-captions.toml"
CHUNK = 32


@dataclass(frozen=True)
class Row:
    """A line of the table: who wrote, in which language, and what came out."""

    who: str
    language: str
    figures: dict[str, float]


class Table:
    """Photos of a part that have captions in a language, and what is measured on them."""

    def __init__(self, lessons: Lessons, part: str, language: str, most: int) -> None:
        self.lessons, self.language = lessons, language
        with_texts = [p for p in lessons.parts[part] if language in lessons.photos[p].captions]
        self.photos = with_texts[:most]
        self.references = [lessons.photos[p].captions[language] for p in self.photos]
        self.vectors = lessons.image_vectors().numpy()
        texts = (lessons.photos[p].captions.get(language, []) for p in lessons.parts["train"])
        self._known = {tuple(tokens(text, language)) for some in texts for text in some}

    def row(self, who: str, said: Sequence[str], references: Sequence[Sequence[str]] | None = None) -> Row:
        """The figures of a caption for each photo."""
        found = figures(said, references or self.references, self.language)
        texts = self.lessons.encoder.encode_texts(list(said))
        best = (texts @ self.vectors[self.photos].T).argmax(1)
        found["R@1"] = round(100 * float((best == np.arange(len(said))).mean()), 1)
        counted = [tuple(tokens(text, self.language)) for text in said]
        found["different"] = round(100 * len(set(counted)) / max(len(counted), 1), 1)
        found["copied"] = round(100 * float(np.mean([one in self._known for one in counted])), 1)
        return Row(who, self.language, found)

    def nearest(self) -> list[Row]:
        """The nearest training photo's captions: the first of them, and the one nearest to the picture."""
        lessons = self.lessons
        pool = [p for p in lessons.parts["train"] if lessons.photos[p].captions.get(self.language)]
        if not pool:
            return []
        like = (self.vectors[self.photos] @ self.vectors[pool].T).argmax(1)
        first, best = [], []
        for photo, at in zip(self.photos, like.tolist(), strict=True):
            texts = lessons.photos[pool[at]].captions[self.language]
            first.append(texts[0])
            best.append(texts[int((lessons.encoder.encode_texts(texts) @ self.vectors[photo]).argmax())])
        return [self.row("nearest photo, first caption", first), self.row("nearest photo, best caption", best)]

    def person(self) -> list[Row]:
        """Each photo's first caption against its others."""
        if any(len(texts) < 2 for texts in self.references):
            return []
        said, others = [texts[0] for texts in self.references], [texts[1:] for texts in self.references]
        return [self.row("a person, against the others", said, others)]

    def written(self, name: str) -> Row:
        """What the captioner called `name` writes of the photos' files."""
        encoder = self.lessons.encoder
        captioner = load_captioner(name, encoder, device="cpu")
        said: list[str] = []
        with Bar(f"{self.language} captions", len(self.photos)) as bar:
            for at in range(0, len(self.photos), CHUNK):
                paths = [self.lessons.photos[p].path for p in self.photos[at : at + CHUNK]]
                pixels = np.stack([load_pixels(path, captioner.pixels) for path in paths])
                side = captioner.pixels.size
                origins = [Origin(path, side, side) for path in paths]
                wrote = captioner.write(pixels, origins, [self.language], 1)
                for drafts, photo in zip(wrote, self.photos[at : at + CHUNK], strict=True):
                    some = drafts.captions[self.language]
                    cosines = encoder.encode_texts([one.text for one in some]) @ self.vectors[photo]
                    best = ranked(some, cosines, captioner.cosine_weight)
                    said.append(some[best[0]].text if best else "")
                bar.to(len(said))
        return self.row(name, said)


def shown(rows: Sequence[Row]) -> list[str]:
    """The table, as Markdown."""
    names = list(rows[0].figures)
    lines = [f"| captions | | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    return lines + [
        f"| {row.who} | {row.language} | {' | '.join(f'{row.figures[name]:.1f}' for name in names)} |" for row in rows
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captioner", help="a folder, or hf:ORG/NAME")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose towers and held-out photos these are")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a recipe value")
    parser.add_argument("--lang", choices=("zh", "en"), action="append", help="by default both")
    parser.add_argument("--part", choices=("val", "choose", "train"), default="val", help="which photos")
    parser.add_argument("--most", type=int, default=500, metavar="N", help="photos, from the first")
    parser.add_argument("--out", type=Path, help="write the rows there too, as JSON")
    args = parser.parse_args(argv)
    recipe = read_recipe(args.recipe, args.set, CaptionRecipe)
    base = args.recipe.resolve().parent
    encoder = BriVLEncoder(checkpoint_folder(str(recipe.init.checkpoint), base), device="cpu")
    lessons = Lessons(recipe, base, encoder)
    rows: list[Row] = []
    for language in args.lang or ("zh", "en"):
        table = Table(lessons, args.part, language, args.most)
        if table.photos:
            rows += [table.written(args.captioner), *table.nearest(), *table.person()]
    if not rows:
        raise SystemExit(f"no photo of {args.part} has captions in {' or '.join(args.lang or ('zh', 'en'))}")
    print("\n".join(shown(rows)))
    if args.out:
        args.out.write_text(json.dumps([vars(row) for row in rows], ensure_ascii=False, indent=2) + "\n")


if __name__ == "__main__":
    main()
