"""What an evaluation compares: texts and images as vectors, and which text belongs to which image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

DirectionName = Literal["text_to_image", "image_to_text"]
DIRECTIONS: tuple[DirectionName, DirectionName] = ("text_to_image", "image_to_text")


@dataclass(frozen=True, eq=False)
class Direction:
    """Queries of one kind against candidates of the other.

    Attributes:
        name: which way.
        queries: floating (q, dim).
        candidates: floating (n, dim).
        truth: for each query the numbers of its partners among the candidates.
        cluster: int64 (q,), 0, 1, ...: what belongs together when queries are drawn again, an image with its texts;
            the same number means the same image in both directions.
        query_numbers: int64 (q,), place of each query in `Pairs.texts` or `Pairs.images`.
        lowered: float32 (n,), by which candidates that are hubs are corrected; None: they are not.
    """

    name: DirectionName
    queries: np.ndarray
    candidates: np.ndarray
    truth: Sequence[Sequence[int]]
    cluster: np.ndarray
    query_numbers: np.ndarray
    lowered: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Pairs:
    """Texts, images and who belongs to whom.

    Attributes:
        texts: the captions.
        images: paths of the images.
        partners: for each text the numbers of its images; nearly always one, several where a dataset says so (MUGE).
        text_vectors: floating (texts, dim), unit length; float16 from an index.
        image_vectors: floating (images, dim).
        text_ids: what the dataset calls each text, "" where it does not say; empty: it never does.
        lowered: float32 (images,), what a hub correction adds to the scores of each image; None: there is none.
    """

    texts: Sequence[str]
    images: Sequence[str]
    partners: Sequence[Sequence[int]]
    text_vectors: np.ndarray
    image_vectors: np.ndarray
    text_ids: Sequence[str] = ()
    lowered: np.ndarray | None = None

    @cached_property
    def texts_of(self) -> list[list[int]]:
        """For each image the numbers of its texts, ascending."""
        out: list[list[int]] = [[] for _ in self.images]
        for number, owners in enumerate(self.partners):
            for owner in owners:
                out[owner].append(number)
        return out

    @cached_property
    def with_texts(self) -> np.ndarray:
        """int64: numbers of the images that have texts, ascending."""
        return np.flatnonzero([bool(texts) for texts in self.texts_of])

    @cached_property
    def _group_of(self) -> np.ndarray:
        """int64 (images,): for each image that has texts the group it is drawn in.

        A group is an image with its texts; images that share a text are one group, for they do not vary independently.
        """
        group = list(range(len(self.images)))

        def root(image: int) -> int:
            while group[image] != image:
                group[image] = group[group[image]]
                image = group[image]
            return image

        for owners in self.partners:
            for other in owners[1:]:
                group[root(other)] = root(owners[0])
        roots = np.array([root(image) for image in range(len(self.images))], dtype=np.int64)
        numbers = np.full(len(self.images), -1, dtype=np.int64)
        numbers[self.with_texts] = np.unique(roots[self.with_texts], return_inverse=True)[1].reshape(-1)
        return numbers

    def direction(self, name: DirectionName) -> Direction:
        """All texts look for their images; or all images that have texts look for these."""
        if name == "text_to_image":
            cluster = self._group_of[[owners[0] for owners in self.partners]]
            numbers = np.arange(len(self.texts))
            return Direction(name, self.text_vectors, self.image_vectors, self.partners, cluster, numbers, self.lowered)
        some = self.with_texts
        truth = [self.texts_of[image] for image in some.tolist()]
        # All images have texts in most datasets: then no copy is made.
        queries = self.image_vectors if len(some) == len(self.images) else self.image_vectors[some]
        return Direction(name, queries, self.text_vectors, truth, self._group_of[some], some)

    def query_label(self, direction: Direction, query: int) -> str:
        """The caption, or the path of the image, that a query is."""
        number = int(direction.query_numbers[query])
        return self.texts[number] if direction.name == "text_to_image" else self.images[number]

    def candidate_label(self, direction: Direction, number: int) -> str:
        """The path of the image, or the caption, that a candidate is."""
        return self.images[number] if direction.name == "text_to_image" else self.texts[number]


def first_of_each(owners: Sequence[int]) -> list[int]:
    """Numbers of the texts that are the first of their image: what --recall diagonal compares."""
    first: dict[int, int] = {}
    for number, owner in enumerate(owners):
        first.setdefault(owner, number)
    return sorted(first.values())
