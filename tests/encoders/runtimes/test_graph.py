"""What is made plain before an export computes the same; int8 spares what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from brivl_search.encoders.runtimes import graph
from brivl_search.encoders.runtimes.choice import Choice
from brivl_search.encoders.runtimes.made import pictures, texts
from brivl_search.errors import EncoderError


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "causal", "by head", "padding"])
def test_plain_attention_is_torchs(batch_first: bool, mask: str) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 4, batch_first=batch_first).eval()
    tokens = torch.randn(3, 5, 16)
    given = tokens if batch_first else tokens.transpose(0, 1)
    causal = torch.full((5, 5), float("-inf")).triu(1)
    padding = torch.arange(5) >= torch.tensor([[5], [3], [1]])
    options = {
        "none": {},
        "causal": {"attn_mask": causal},
        "by head": {"attn_mask": causal.expand(12, 5, 5)},
        "padding": {"key_padding_mask": padding},
    }[mask]
    with torch.no_grad():
        wanted, _ = attention(given, given, given, need_weights=False, **options)
        attention.__class__ = graph.PlainAttention
        found, _ = attention(given, given, given, need_weights=False, **options)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, 15), (3, 2, 16), (5, 2, 7), (3, 1, 8), (1, 2, 9)])
def test_padding_by_the_size_of_the_picture_is_timms(kernel: int, stride: int, size: int) -> None:
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    convolution = Conv2dSame(2, 3, kernel, stride=stride)
    given = torch.randn(1, 2, size, size + 3)
    with torch.no_grad():
        wanted = convolution(given)
        graph._plain(convolution)
        torch.testing.assert_close(convolution(given), wanted)


def test_made_pictures_and_texts_are_the_same_everywhere() -> None:
    first = pictures(2, 24)
    assert first.shape == (2, 24, 24, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, pictures(2, 24))
    assert (pictures(1, 24, seed=1) != first[:1]).any() and first.std() > 10
    assert len(texts(30)) == 30 and texts(2) == texts(30)[:2]


class Tower(nn.Module):
    """A picture → a vector, by convolutions or by linear layers after a patch convolution."""

    def __init__(self, convolutions: int, linears: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*(nn.Conv2d(3 if not at else 8, 8, 3, 2) for at in range(convolutions)))
        self.linears = nn.Sequential(*(nn.Linear(8, 8) for _ in range(linears)))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linears(self.convolutions(pixels.float().permute(0, 3, 1, 2)).mean((2, 3)))
        return found


def exported(tower: nn.Module, path: Path, size: int) -> Path:
    side = graph.Exportable(tower, ["pixels"], lambda n: (torch.from_numpy(pictures(n, size)),))
    graph.export(side, path, "tower")
    return path


@pytest.mark.parametrize(("convolutions", "linears", "kind"), [(1, 6, "MatMulInteger"), (9, 4, "Conv")])
def test_int8_spares_the_first_and_the_last_layer_and_the_patch_convolution(
    convolutions: int, linears: int, kind: str, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from brivl_search.encoders.runtimes.quantize import int8

    size = 3 * 2**convolutions + 2
    source = exported(Tower(convolutions, linears), tmp_path / "plain.onnx", size)
    int8(source, tmp_path / "int8.onnx", Choice("onnx", "int8"), lambda: pictures(4, size))
    nodes = onnx.load(tmp_path / "int8.onnx").graph.node
    by_output = {name: node for node in nodes for name in node.output}
    plain = [node for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    if kind == "Conv":
        scaled = [by_output.get(node.input[1]) for node in nodes if node.op_type == "Conv"]
        kinds = [None if one is None else one.op_type for one in scaled]
        assert kinds == [None, *["DequantizeLinear"] * (convolutions - 2), None]
        assert not any(node.op_type in ("MatMulInteger", "QLinearMatMul") for node in nodes)
    else:
        assert sum(node.op_type == "MatMulInteger" for node in nodes) == linears - 2
        assert [node.op_type for node in plain].count("Conv") == 1 and len(plain) == 3


def test_int8_of_a_transformer_is_for_onnx_runtime(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from brivl_search.encoders.runtimes.quantize import int8

    source = exported(Tower(1, 6), tmp_path / "plain.onnx", 16)
    with pytest.raises(EncoderError, match="int8 of a transformer is for ONNX Runtime"):
        int8(source, tmp_path / "int8.onnx", Choice("openvino", "int8"), lambda: pictures(4, 16))
    assert not (tmp_path / "int8.onnx").exists()
