"""A small random EmbeddingGemma 2 as sentence-transformers keeps it: with prompts, pooling, and unit length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SEARCH, CAPTION = "task: search result | query: ", "title: none | text: "


def make_gemma(folder: Path, *, pictures: bool = True) -> Path:
    """Writes modules.json, config_sentence_transformers.json with prompts, the model and 1_Pooling.

    Args:
        folder: where everything goes.
        pictures: with a vision tower and the processor of the whole model; else the text model alone.
    """
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers import pre_tokenizers

    marks = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    letters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "▁"]
    letters += [*"一只在草地上的狗", *(f"<0x{n:02X}>" for n in range(256))]
    vocab = {letter: n for n, letter in enumerate(dict.fromkeys(letters))}
    tokenizer = transformers.GemmaTokenizer(vocab=vocab, merges=[], extra_special_tokens=marks)
    ids = {key: tokenizer.convert_tokens_to_ids(mark) for key, mark in marks.items()}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **small,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 8,
        "embedding_dim": 24,
        "sliding_window": 64,
        "max_position_embeddings": 512,
        "vocab_size": len(tokenizer) + 8,
    }
    vision = {**small, "model_type": "gemma4_vision", "num_key_value_heads": 2, "head_dim": 16, "patch_size": 8}
    vision |= {"pooling_kernel_size": 2, "position_embedding_size": 64}
    torch.manual_seed(0)
    parts = folder / "parts"
    if pictures:
        config: Any = transformers.EmbeddingGemma2Config(
            text_config=text,
            vision_config=vision,
            audio_config=None,
            image_token_id=ids["image_token"],
            boi_token_id=ids["boi_token"],
            eoi_token_id=ids["eoi_token"],
            audio_token_id=ids["audio_token"],
            boa_token_id=ids["boa_token"],
            eoa_token_index=ids["eoa_token"],
            video_token_id=len(tokenizer),
        )
        model: Any = transformers.EmbeddingGemma2Model(config)
    else:
        model = transformers.EmbeddingGemma2TextModel(transformers.EmbeddingGemma2TextConfig(**text))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1:
                value.normal_(0, 1.0 if "embed_tokens" in name else 1 / value[0].numel() ** 0.5)
    model.save_pretrained(parts)
    if pictures:
        cut = {"patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 70}
        transformers.EmbeddingGemma2Processor(
            feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
            image_processor=transformers.Gemma4ImageProcessor(**cut),
            tokenizer=tokenizer,
            video_processor=transformers.EmbeddingGemma2VideoProcessor(**cut),
        ).save_pretrained(parts)
    else:
        tokenizer.save_pretrained(parts)
    modules = [Transformer(str(parts)), Pooling(24, pooling_mode="mean"), Normalize()]
    whole = SentenceTransformer(modules=modules, device="cpu", prompts={"query": SEARCH, "document": CAPTION})
    whole.save_pretrained(str(folder / "whole"))
    return folder / "whole"
