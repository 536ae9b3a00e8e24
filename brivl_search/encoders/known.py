"""Well-known encoders: their sizes, their languages, and published results in retrieval.

Every figure names its source. Figures of different tests, test sets or directions cannot be compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["text → image", "image → text", "not said"]


@dataclass(frozen=True)
class Figure:
    """A published result, in %.

    Attributes:
        test: test set and setting.
        direction: what was searched with what.
        recall: R@1, R@5, R@10, as far as they were published.
        source: the publication.
        mean_recall: the mean of R@1, R@5 and R@10, if only that was published.
    """

    test: str
    direction: Direction
    recall: tuple[float, ...]
    source: str
    mean_recall: float | None = None

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"test": self.test, "direction": self.direction}
        out |= {f"r{k}": value for k, value in zip((1, 5, 10), self.recall, strict=False)}
        if self.mean_recall is not None:
            out["mean_recall"] = self.mean_recall
        return {**out, "source": self.source}


@dataclass(frozen=True)
class KnownModel:
    """An encoder by name.

    Attributes:
        name: what `load_encoder` and `--encoder` take.
        languages: of the texts it was trained on.
        dim: length of a vector.
        parameters: of both towers, in millions; None: unknown.
        pixels: side of the square pictures it takes; None: various sizes.
        figures: published results.
        needs: the extra of this package to install, or "".
        note: anything else worth knowing.
        matryoshka: the shortest and longest vectors it was trained to be cut to; empty: it was not.
        licence: of the weights; "": not known here.
    """

    name: str
    languages: str
    dim: int
    parameters: int | None = None
    pixels: int | None = None
    figures: tuple[Figure, ...] = ()
    needs: str = ""
    note: str = ""
    matryoshka: tuple[int, ...] = ()
    licence: str = ""


_CHINESE_CLIP = "Chinese-CLIP (arXiv 2211.01335), README of OFA-Sys/Chinese-CLIP"
_OPEN_CLIP = "open_clip, its csv of multilingual retrieval results"
_IMMICH = "immich docs, table of search models (mean of R@1, R@5 and R@10)"
_FG_CLIP = "FG-CLIP 2 (arXiv 2510.10921)"
_FG_NOTE = "up to 1,024 patches a picture, ?patches=256 is about four times less work; long texts are read whole"
_MILVUS = "Milvus, How to Choose the Best Embedding Model for RAG in 2026 (milvus.io/blog, March 2026)"


# The README's tables of zero-shot retrieval, a model a line: R@1, R@5 and R@10 of each test, in the order below.
_CHINESE_CLIP_TESTS: tuple[tuple[str, Direction], ...] = (
    ("MUGE valid, zero-shot", "text → image"),
    ("Flickr30K-CN test, zero-shot", "text → image"),
    ("Flickr30K-CN test, zero-shot", "image → text"),
    ("COCO-CN test, zero-shot", "text → image"),
    ("COCO-CN test, zero-shot", "image → text"),
)
_CHINESE_CLIP_TABLE = """
model                    dim   M  px  MUGE t→i        Flickr t→i      Flickr i→t      COCO t→i        COCO i→t
vit-base-patch16         512 188 224  52.1 76.7 84.4  62.7 86.9 92.8  74.6 93.5 97.1  62.2 86.6 94.9  57.0 84.1 93.6
vit-large-patch14        768 406 224  56.3 79.8 86.2  68.0 89.7 94.4  80.2 96.6 98.2  64.0 89.2 94.4  60.4 84.2 92.9
vit-large-patch14-336px  768 407 336  59.0 81.4 87.8  69.0 90.7 95.4  83.3 97.2 98.5  64.7 89.6 94.6  63.4 87.2 94.4
vit-huge-patch14        1024 958 224  63.0 84.1 89.2  71.2 91.4 95.5  81.6 97.5 98.8  69.2 89.9 96.1  63.0 86.6 92.9
"""


def _chinese_clip() -> list[KnownModel]:
    models = []
    for line in _CHINESE_CLIP_TABLE.strip().splitlines()[1:]:
        name, dim, parameters, pixels, *cells = line.split()
        rows = [tuple(map(float, cells[at : at + 3])) for at in range(0, len(cells), 3)]
        figures = tuple(
            Figure(test, way, row, _CHINESE_CLIP) for (test, way), row in zip(_CHINESE_CLIP_TESTS, rows, strict=True)
        )
        models.append(
            KnownModel(
                f"hf:OFA-Sys/chinese-clip-{name}",
                "zh",
                int(dim),
                int(parameters),
                int(pixels),
                figures,
                licence="Apache-2.0",
            )
        )
    return models


KNOWN = (
    KnownModel(
        "brivl-mini",
        "zh, en",
        256,
        note="bundled; figures on held-out Flickr8k photos in its model card",
        licence="research, non-commercial data",
    ),
    KnownModel(
        "official:BriVL-1.0-5500w.pth",
        "zh",
        2048,
        274,
        380,
        (
            Figure(
                "Flickr30k-CN val, zero-shot, 1 caption, BUA boxes",
                "image → text",
                (15.93,),
                "a user's measurement, BAAI-WuDao/BriVL-BUA-applications issue 3",
            ),
            Figure(
                "Flickr30k-CN val, zero-shot, 1 caption, BUA boxes",
                "text → image",
                (13.74,),
                "a user's measurement, BAAI-WuDao/BriVL-BUA-applications issue 3",
            ),
        ),
        note="BriVL as released (EfficientNet-B5, RoBERTa base): not the model of the papers",
    ),
    *_chinese_clip(),
    KnownModel("hf:BAAI/AltCLIP", "zh, en", 768, pixels=224),
    KnownModel(
        "hf:google/siglip-base-patch16-256-multilingual",
        "multilingual",
        768,
        pixels=256,
        figures=(
            Figure("Crossmodal-3600, Chinese", "text → image", (47.4,), _OPEN_CLIP),
            Figure("Crossmodal-3600, Chinese", "image → text", (50.1,), _OPEN_CLIP),
            Figure("multilingual COCO, Chinese", "text → image", (50.4,), _OPEN_CLIP),
            Figure("multilingual COCO, Chinese", "image → text", (49.6,), _OPEN_CLIP),
        ),
        needs="hf",
    ),
    KnownModel("hf:google/siglip2-base-patch16-224", "multilingual", 768, 375, 224, licence="Apache-2.0"),
    KnownModel(
        "hf:google/siglip2-base-patch16-naflex",
        "multilingual",
        768,
        375,
        note="keeps pictures' aspect ratio",
        licence="Apache-2.0",
    ),
    KnownModel(
        "hf:qihoo360/fg-clip2-base",
        "zh, en",
        768,
        384,
        figures=(Figure("COCO-CN test, zero-shot", "text → image", (62.9,), _FG_CLIP),),
        note=_FG_NOTE,
        licence="Apache-2.0",
    ),
    KnownModel("hf:qihoo360/fg-clip2-large", "zh, en", 1024, note=_FG_NOTE, licence="Apache-2.0"),
    KnownModel(
        "hf:qihoo360/fg-clip2-so400m",
        "zh, en",
        1152,
        figures=(
            Figure("Flickr30K-CN, zero-shot, best of its three sizes", "text → image", (77.2,), _FG_CLIP),
            Figure("Flickr30K-CN, zero-shot, best of its three sizes", "image → text", (91.5,), _FG_CLIP),
        ),
        note=_FG_NOTE,
        licence="Apache-2.0",
    ),
    KnownModel(
        "hf:openai/clip-vit-base-patch32",
        "en",
        512,
        pixels=224,
        figures=(Figure("Crossmodal-3600, English", "not said", (), _IMMICH, 59.4),),
    ),
    KnownModel(
        "hf:jinaai/jina-clip-v2",
        "multilingual (89)",
        1024,
        pixels=512,
        needs="sentence",
        note="own program code: BRIVL_SEARCH_TRUST_REMOTE_CODE=1",
        matryoshka=(64, 1024),
        licence="CC-BY-NC-4.0",
    ),
    KnownModel(
        "open_clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
        "multilingual",
        512,
        366,
        224,
        (
            Figure("Crossmodal-3600, Chinese", "text → image", (53.7,), _OPEN_CLIP),
            Figure("Crossmodal-3600, Chinese", "image → text", (57.4,), _OPEN_CLIP),
        ),
        needs="open-clip",
        licence="MIT",
    ),
    KnownModel(
        "open_clip:xlm-roberta-large-ViT-H-14/frozen_laion5b_s13b_b90k",
        "multilingual",
        1024,
        1193,
        224,
        (
            Figure("Crossmodal-3600, Chinese", "text → image", (59.1,), _OPEN_CLIP),
            Figure("Crossmodal-3600, Chinese", "image → text", (63.2,), _OPEN_CLIP),
            Figure("multilingual COCO, Chinese", "text → image", (61.9,), _OPEN_CLIP),
            Figure("multilingual COCO, Chinese", "image → text", (63.7,), _OPEN_CLIP),
        ),
        needs="open-clip",
        licence="MIT",
    ),
    KnownModel(
        "open_clip:nllb-clip-base-siglip/mrl",
        "multilingual (201)",
        768,
        pixels=384,
        needs="open-clip",
        licence="CC-BY-NC-4.0",
        matryoshka=(32, 768),
    ),
    KnownModel(
        "open_clip:nllb-clip-large-siglip/mrl",
        "multilingual (201)",
        1152,
        pixels=384,
        figures=(
            Figure("Crossmodal-3600, Chinese", "text → image", (59.5,), _OPEN_CLIP),
            Figure("Crossmodal-3600, Chinese", "image → text", (55.4,), _OPEN_CLIP),
        ),
        needs="open-clip",
        licence="CC-BY-NC-4.0",
        matryoshka=(32, 1152),
    ),
    KnownModel("open_clip:MobileCLIP2-S0/dfndr2b", "en", 512, pixels=256, needs="open-clip"),
    KnownModel("open_clip:PE-Core-B-16/meta", "en", 1024, pixels=224, needs="open-clip"),
    KnownModel(
        "hf:immich-app/XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k",
        "multilingual",
        512,
        366,
        224,
        needs="onnx",
        note="runs without torch",
        licence="MIT",
    ),
    KnownModel(
        "hf:immich-app/nllb-clip-base-siglip__mrl",
        "multilingual (201)",
        768,
        pixels=384,
        needs="onnx",
        note="runs without torch",
        licence="CC-BY-NC-4.0",
        matryoshka=(32, 768),
    ),
    KnownModel(
        "hf:google/embeddinggemma-2",
        "multilingual",
        768,
        740,
        needs="sentence",
        note="own prompts for queries and captions",
        licence="Apache-2.0",
        matryoshka=(128, 768),
    ),
    KnownModel(
        "hf:Qwen/Qwen3-VL-Embedding-2B",
        "multilingual",
        2048,
        figures=(Figure("pictures among hard distractors", "not said", (94.5,), _MILVUS),),
        needs="sentence",
        licence="Apache-2.0",
        note="own instructions for queries and captions",
        matryoshka=(64, 2048),
    ),
)

_REVISION = re.compile(r"(@[\w./-]+)?(\?.*)?$", re.DOTALL)


def known_matryoshka(name: str) -> tuple[int, ...]:
    """The shortest and longest vectors that a model was trained to be cut to; empty: unknown, or not at all."""
    bare = _REVISION.sub("", name)
    return next((model.matryoshka for model in KNOWN if model.name == bare), ())
