"""open_clip's own tokenizers, with the language token of NLLB set by each text's script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brivl_search.corpus.spelling import Spelling
from brivl_search.encoders.hf.towers import quiet
from brivl_search.encoders.hf.words import spelling, unknown, unreadable
from brivl_search.encoders.open_clip.config import Description
from brivl_search.encoders.open_clip.language import language

if TYPE_CHECKING:
    import torch

_CLIPS_MARKS = 3  # the special tokens that the mode "clips" adds itself


class Tokens:
    """Texts → token ids, exactly as open_clip's tokenizer of a model gives them. Not for several threads at once."""

    def __init__(self, name: str, about: Description, folder: Path | None) -> None:
        """Loads the tokenizer.

        Args:
            name: of the model, for messages.
            about: what its config says.
            folder: where the tokenizer's files are; None: open_clip's built-in one.

        Raises:
            DependencyError: it needs sentencepiece, which is not installed.
            EncoderError: its files are missing or damaged.
        """
        import open_clip

        self.context = about.context
        mode = about.text.get("tokenizer_mode")
        self._clips = mode == "clips"
        self.words: Any = None  # the tokenizer of transformers; None: open_clip's own, of bytes
        try:
            if folder is None:
                self.tokenizer: Any = open_clip.SimpleTokenizer(context_length=self.context, **about.reading)
            else:
                with quiet():
                    self.tokenizer = open_clip.tokenizer.HFTokenizer(
                        folder,
                        context_length=self.context,
                        tokenizer_mode=mode,
                        trust_remote_code=False,
                        local_files_only=True,
                        **about.reading,
                    )
                self.words = self.tokenizer.tokenizer
        except Exception as error:
            raise unreadable(name, f"the tokenizer of {name} in {folder}", error) from None
        self._speaks = hasattr(self.tokenizer, "set_lang_fn")
        self._own_language = getattr(self.words, "src_lang", None)
        self._fixed = str(about.reading.get("language") or "")

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """int64 (n, context)."""
        import torch

        out = torch.zeros(len(texts), self.context, dtype=torch.long)
        for rows in self._by_language(texts):
            out[rows] = self.tokenizer([texts[row] for row in rows])
        return out

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, however many are kept."""
        if self.words is None:
            return [len(self.tokenizer.encode(text)) + 2 for text in texts]
        if not texts:
            return []
        clean = [self.tokenizer.clean_fn(text) for text in texts]
        whole = self.words(clean, add_special_tokens=not self._clips, truncation=False, verbose=False)
        return [len(ids) + (_CLIPS_MARKS if self._clips else 0) for ids in whole["input_ids"]]

    def unknown(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text that the tokenizer does not know, each once; none are unknown to one of bytes."""
        if self.words is None:
            return [[] for _ in texts]
        return unknown(self.words, [self.tokenizer.clean_fn(text) for text in texts])

    def spelling(self) -> Spelling:
        """How texts are spelled for it, before it cleans them itself."""
        return Spelling() if self.words is None else spelling(self.words)

    def _by_language(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Rows of one language at a time, for which the tokenizer is set."""
        groups: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            groups.setdefault((self._fixed or language(text)) if self._speaks else "", []).append(row)
        for code, rows in groups.items():
            if code:
                self._set_language(code)
            yield rows

    def _set_language(self, code: str) -> None:
        """Sets `src_lang`: open_clip's own `set_language` sets the token alone, which transformers 5 sets back
        before it reads a text. A language that the tokenizer has no token for leaves it as it was made."""
        id_ = self.words.convert_tokens_to_ids(code)
        known = id_ is not None and id_ != self.words.unk_token_id
        self.words.src_lang = code if known else self._own_language
