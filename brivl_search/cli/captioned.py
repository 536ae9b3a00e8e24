"""The options of captioned photos to measure with, once for all verbs that take them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from brivl_search.cli.app import caption_fields
from brivl_search.cli.options import Encoding

if TYPE_CHECKING:
    from brivl_search.corpus.dataset import Dataset

_LAYOUT = Annotated[str | None, typer.Option("--dataset-format", help="Layout of the --dataset [default: recognised].")]
_SPLIT = Annotated[str | None, typer.Option("--split", help="Only this split of the --dataset, such as test.")]
_IMAGES = Annotated[Path | None, typer.Option("--images", help="Folder of the --dataset's images.")]


@dataclass(frozen=True)
class Captioned:
    """What the options say: which photos, and how they are read."""

    dataset: Path | None = None
    dataset_format: str | None = None
    split: str | None = None
    images: Path | None = None
    encoding: str | None = None
    captions: str | None = None

    @property
    def reads(self) -> bool:
        """Whether an option says how to read the dataset."""
        return bool(self.dataset_format or self.split or self.images or self.encoding)

    def load(self) -> Dataset:
        """Reads the photos and captions; `dataset` is given.

        Raises:
            CorpusError: they cannot be read.
            UsageError: an option does not fit them.
        """
        from brivl_search.corpus.dataset import load_dataset

        assert self.dataset is not None
        wanted = caption_fields(self.captions)
        return load_dataset(
            self.dataset,
            wanted,
            format=self.dataset_format,
            split=self.split,
            images=self.images,
            encoding=self.encoding,
        )


NO_PHOTOS = Captioned()


def takes_captioned(
    dataset: str = "Folder or annotation file: photos it was not trained on, with captions.",
    captions: str = "Which captions [default: zh,en,captions].",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a verb's parameter `given: Captioned = NO_PHOTOS` into the options that it stands for.

    Args:
        dataset: help of --dataset.
        captions: help of --captions.
    """
    kinds: dict[str, Any] = {
        "dataset": Annotated[Path | None, typer.Option("--dataset", help=dataset)],
        "dataset_format": _LAYOUT,
        "split": _SPLIT,
        "images": _IMAGES,
        "encoding": Encoding,
        "captions": Annotated[str | None, typer.Option("--captions", metavar="FIELDS", help=captions)],
    }
    names = [one.name for one in fields(Captioned)]

    def dressed(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(verb, include_extras=True)
        parameters = []
        for one in inspect.signature(verb).parameters.values():
            if one.name != "given":
                parameters.append(one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            parameters += [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kinds[name])
                for name in names
            ]

        @wraps(verb)
        def run(**options: Any) -> None:
            verb(given=Captioned(**{name: options.pop(name) for name in names}), **options)

        del run.__wrapped__  # whoever asks for the parameters gets these
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return dressed
