"""BriVL's text tower: BERT-style encoder → self-attention → masked mean → MLP → unit vector (arXiv 2110.14378)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.config import TextTowerConfig
from brivl_search.encoders.brivl.heads import TowerHead
from brivl_search.errors import EncoderError


class TextTower(nn.Module):
    """Token ids → unit vectors.

    The backbone gets the attention mask, so a vector does not depend on the padding of its batch. The published code
    gives none; `padding="seen"` in the config reproduces that.
    """

    def __init__(self, config: TextTowerConfig, dim: int) -> None:
        """Builds the tower with random weights.

        Raises:
            EncoderError: transformers does not know the backbone's "model_type", or its settings do not fit.
        """
        super().__init__()
        settings: dict[str, Any] = dict(config.backbone)
        model_type = settings.pop("model_type", "bert")
        try:
            if model_type == "bert":  # the direct import is seconds faster than the Auto classes
                from transformers.models.bert.configuration_bert import BertConfig
                from transformers.models.bert.modeling_bert import BertModel

                self.backbone = BertModel(BertConfig(**settings), add_pooling_layer=False)
            else:
                from transformers import AutoConfig, AutoModel

                self.backbone = AutoModel.from_config(AutoConfig.for_model(model_type, **settings))
        except (KeyError, ValueError, TypeError) as error:
            raise EncoderError(f"transformers cannot build the text backbone {model_type!r}: {error}") from None
        self.config = config
        self.head = TowerHead(int(self.backbone.config.hidden_size), dim, config.head)

    def _tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        if self.config.padding == "seen":
            count = ids.shape[1]
            pad = int(self.backbone.config.pad_token_id or 0)
            padded = F.pad(ids.masked_fill(~mask, pad), (0, self.config.max_length - count), value=pad)
            # What follows masks padding, so its tokens are not needed beyond this point.
            return self.backbone(input_ids=padded).last_hidden_state[:, :count]  # type: ignore[no-any-return]
        return self.backbone(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # type: ignore[no-any-return]

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As `forward`, without the last layer: (B, hidden)."""
        return self.head.hidden(self._tokens(ids, mask), mask)

    def pool(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As `forward`, without the MLP (`head.finish`): (B, width)."""
        return self.head.pool(self._tokens(ids, mask), mask)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids (B, T) int64 and mask (B, T) bool → unit vectors (B, dim), float32."""
        return self.head(self._tokens(ids, mask), mask)  # type: ignore[no-any-return]
