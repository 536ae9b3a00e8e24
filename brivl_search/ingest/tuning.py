"""Queries of the other modality, to tune IVF-PQ with: the index's own captions and pictures.

Where there are too few captions, plain queries as people type them stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from brivl_search.index import IndexWriter, Modality

TUNING_QUERIES = 512
LEAST_CAPTIONS = 64  # with fewer, captions say little about what people will ask for

Encode = Callable[[Sequence[str]], np.ndarray]  # texts → float32 (n, dim), unit length

_THINGS = {
    "en": "a dog|a cat|a child|two women|a man in a red shirt|a crowd|a car|a bicycle|a boat|a horse|birds|flowers|"
    "food on a plate|a tall building|an old temple|a train|a football player|a document",
    "zh": "一只狗|一只猫|一个小孩|两个女人|一个穿红色衬衫的男人|一群人|一辆汽车|一辆自行车|一条船|一匹马|鸟|花|"
    "盘子里的食物|高楼|古老的寺庙|火车|足球运动员|一份文件",
}
_PLACES = {
    "en": "{}|{} on the grass|{} on the beach|{} in the snow|{} in a street|{} at night|{} near water|{} in a room|"
    "{} in the mountains|a photo of {} under a blue sky",
    "zh": "{}|草地上的{}|海滩上的{}|雪地里的{}|街上的{}|夜晚的{}|水边的{}|房间里的{}|山里的{}|蓝天下{}的照片",
}


def tuning_texts() -> list[str]:
    """360 queries, half Chinese, half English."""
    return [
        place.format(thing)
        for language in ("zh", "en")
        for thing in _THINGS[language].split("|")
        for place in _PLACES[language].split("|")
    ]


def tuning_queries(writer: IndexWriter, encode: Encode, *, every: int = 1) -> dict[Modality, np.ndarray]:
    """Queries to tune the search of each modality with.

    Args:
        writer: of the index.
        encode: the text tower, asked only where the index has few captions.
        every: of the plain queries, only every so many are embedded.

    Returns:
        For "image" the vectors of texts, for "text" those of pictures: float32 (n, dim), n at most 512.
    """
    texts = writer.sample("text", TUNING_QUERIES)
    if len(texts) < LEAST_CAPTIONS:
        texts = encode(tuning_texts()[::every])
    return {"image": texts, "text": writer.sample("image", TUNING_QUERIES)}
