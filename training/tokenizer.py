"""Trains tiny-chat's tokenizer: byte-level BPE with Qwen's pre-tokenizer and ChatML tokens; every text round-trips.

`python -m training.tokenizer OUTPUT_DIR` writes tokenizer.json.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.corpus import stream

# Qwen2's split: contractions, words with one leading mark or space, single digits, marks, line breaks, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 4096


def build() -> Tokenizer:
    """An untrained tokenizer; without a normaliser, since that would change the text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(documents: int, seed: int) -> Tokenizer:
    """Train on the bare text of generated dialogues, then add the special tokens behind the merges."""
    tokenizer = build()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (segment.text for segments in islice(stream(seed), documents) for segment in segments)
    tokenizer.train_from_iterator((t for t in texts if not t.startswith("<|im_")), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tokenizer = train(arguments.documents, arguments.seed)
    tokenizer.save(str(arguments.output / "tokenizer.json"))
    print(f"{tokenizer.get_vocab_size()} tokens -> {arguments.output / 'tokenizer.json'}")


if __name__ == "__main__":
    main()
