"""A first text backbone that reads two languages: an English BERT, given Chinese characters.

    python -m train.mini.graft runs/teachers runs/bilingual      # for `init.text` and `init.tokenizer` of a recipe

Layers and English word pieces are the encoder's own; of its vocabulary the pieces stay that the captions use, that are
no whole words, or that are frequent (BERT's vocabularies are sorted so). Every Chinese character of a BERT vocabulary
is added, and starts as the mean of what a dictionary says of the words it is in. A foreign sentence is then a bag of
glosses to the layers; `train.mini.distill` makes it a language.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from brivl_search.encoders.brivl.tokenizer import TextTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def choose_vocabulary(own: Sequence[str], foreign: Iterable[str], needed: set[str], frequent: int) -> list[str]:
    """Special tokens, then pieces of `own` (in its order), then the single characters of `foreign` it lacks.

    Args:
        own: the encoder's vocabulary, most frequent words first; kept are ASCII pieces that are no whole words, that
            are in `needed`, or that are among the first `frequent` whole words.
        foreign: a vocabulary whose Chinese characters are wanted.
    """
    kept, words = list(SPECIAL), 0
    for piece in own:
        if not re.fullmatch(r"(##)?[!-~]+", piece) or re.fullmatch(r"\[\w+\]", piece):
            continue
        whole = not piece.startswith("##") and len(piece) > 1
        words += whole
        if not whole or words <= frequent or piece in needed:
            kept.append(piece)
    return kept + [character for character in foreign if re.fullmatch("[㐀-鿿，。、！？；：（）“”《》]", character)]


def start_characters(
    vocabulary: dict[str, int], table: Tensor, pairs: Sequence[tuple[str, list[int]]], noise: float = 0.5
) -> None:
    """Fills the rows of characters in `table` (V, d): means of the glosses' vectors, short words weighing more.

    Args:
        vocabulary: token → row.
        table: vectors of all tokens, those of the English ones in place; characters in no pair start at their mean.
        pairs: a Chinese word and the rows of its gloss.
        noise: added, in standard deviations of the known vectors.
    """
    known = torch.ones(len(table), dtype=torch.bool)
    for token, row in vocabulary.items():
        known[row] = not re.fullmatch("[㐀-鿿]", token)
    mean, sums, weights = table[known].mean(0), torch.zeros_like(table), torch.zeros(len(table))
    for word, rows in pairs:
        if not rows:
            continue
        gloss = table[rows].mean(0)
        for character in word:
            if (place := vocabulary.get(character)) is not None:
                sums[place] += gloss / len(word) ** 2
                weights[place] += 1 / len(word) ** 2
    spread = table[known].std(0)
    for row in torch.nonzero(~known).flatten().tolist():
        start = sums[row] / weights[row] if weights[row] else mean
        table[row] = start + noise * spread * torch.randn(table.shape[1])


def graft(teachers: Path, target: Path, foreign: Path, texts: Sequence[str], frequent: int) -> int:
    """Writes the grafted encoder as a transformers folder (config, weights, vocab.txt); the size of its vocabulary."""
    from transformers import BertModel

    torch.manual_seed(0)
    model = BertModel.from_pretrained(teachers / "minilm", add_pooling_layer=False)
    own = (teachers / "minilm" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    english = TextTokenizer(teachers / "minilm", 10**6)
    needed = {own[i] for ids in english.ids(texts) for i in ids}
    vocabulary = choose_vocabulary(own, foreign.read_text(encoding="utf-8").split("\n"), needed, frequent)
    rows = {token: row for row, token in enumerate(vocabulary)}
    target.mkdir(parents=True, exist_ok=True)
    (target / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    table = torch.zeros(len(vocabulary), model.config.hidden_size)
    old = {token: row for row, token in enumerate(own)}
    with torch.no_grad():
        for token, row in rows.items():
            if token in old and not re.fullmatch("[㐀-鿿]", token):
                table[row] = model.embeddings.word_embeddings.weight[old[token]]
        lines = [(teachers / f"cedict_{side}.txt").read_text(encoding="utf-8").splitlines() for side in ("zh", "en")]
        ids = TextTokenizer(target, 10**6).ids(lines[1])
        start_characters(rows, table, [(word, gloss[1:-1]) for word, gloss in zip(lines[0], ids, strict=True)])
        model.resize_token_embeddings(len(vocabulary))
        model.embeddings.word_embeddings.weight.copy_(table)
    model.save_pretrained(target)
    return len(vocabulary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path, help="what `python -m train.mini.teachers` wrote")
    parser.add_argument("target", type=Path)
    shared = Path("../shared")
    parser.add_argument("--characters", type=Path, default=shared / "weights/text_vocab/vocab.txt")
    parser.add_argument("--captions", type=Path, default=shared / "data/flickr8k-cn/captions.jsonl")
    parser.add_argument("--hold-out-last", type=int, default=500, help="rows of the captions file not to look at")
    parser.add_argument("--frequent", type=int, default=9000, help="whole words kept whether or not a text uses them")
    args = parser.parse_args()
    captions = args.captions.read_text(encoding="utf-8").splitlines()
    texts = [text for line in captions[: len(captions) - args.hold_out_last] for text in json.loads(line)["en"]]
    size = graft(args.teachers, args.target, args.characters, texts, args.frequent)
    print(f"wrote {args.target}: {size} tokens")


if __name__ == "__main__":
    main()
