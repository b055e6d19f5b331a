"""A CLIP tokenizer with the vocabulary of the corpus.

The byte-pair merges are learned from the captions, in CLIP's own file format
(`vocab.json`, `merges.txt`), so that the stock `CLIPTokenizer` loads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], vocab_size: int, max_length: int, folder: Path) -> None:
    """Learn merges from captions and write a tokenizer folder for `from_pretrained`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    core = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>", fuse_unk=False))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pre_tokenizers_pattern(), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=[],
        show_progress=False,
    )
    core.train_from_iterator((caption.lower() for caption in captions), trainer)
    model = json.loads(core.to_str())["model"]
    tokens = set(model["vocab"])
    ordered = sorted(tokens | {f"{letter}</w>" for letter in alphabet})
    vocab = {token: index for index, token in enumerate([*ordered, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=max_length,
    )
    tokenizer.save_pretrained(folder)


def pre_tokenizers_pattern():  # type: ignore[no-untyped-def]
    """Return CLIP's word pattern: contractions, letters, single digits, other signs."""
    from tokenizers import Regex

    return Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
