"""The main job on real photographs that come inside other packages' wheels: scikit-image's and scikit-learn's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from brivl_search.errors import DependencyError, install_hint

QUERIES = (
    "一只猫",
    "a cat looking at the camera",
    "一个穿橙色衣服的女人",
    "an astronaut in a space suit",
    "桌子上的一杯咖啡",
    "a rocket on the launch pad",
    "红色的花",
    "中国的寺庙",
    "a motorcycle in a garage",
    "草地",
)


def photo_folders() -> list[Path]:
    """Folders of the pictures that ship with scikit-image and scikit-learn, found without importing either.

    Raises:
        DependencyError: one of them is not installed.
    """
    folders = []
    for package, inside in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent / inside if spec is not None and spec.origin else None
        if folder is None or not folder.is_dir():
            raise DependencyError(
                f"the demo shows photographs that ship with scikit-image and scikit-learn: {install_hint('demo')}"
            )
        folders.append(folder)
    return folders
