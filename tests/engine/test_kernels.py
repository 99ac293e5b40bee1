"""The Triton kernels against attention written out; where there is no GPU, Triton's interpreter runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed: its kernels are NOT tested")
from kernel_engine.kernels import decode_attention


@pytest.fixture(autouse=True)
def on_the_gpu_if_there_is_one() -> Iterator[None]:
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        yield


def expected(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    lengths: list[int],
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention written out, one token and one head at a time, in fp64."""
    heads, group = query.shape[1], query.shape[1] // keys.shape[1]
    rows = []
    for token, length in enumerate(lengths):
        seen = slots[token, :length][-window if window else 0 :].long()
        for head in range(heads):
            scores = keys[seen, head // group].double() @ query[token, head].double() * 0.3
            if softcap:
                scores = softcap * torch.tanh(scores / softcap)
            rows.append(scores.softmax(-1) @ values[seen, head // group].double())
    return torch.stack(rows).view(query.shape)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "window", "softcap", "splits"),
    [
        (4, 4, 16, None, None, 1),
        (14, 2, 64, None, None, 4),  # a group that is no power of two
        (4, 2, 24, None, None, 3),  # neither are the dimension and the splits
        (4, 1, 16, 5, None, 2),
        (4, 2, 16, 70, 5.0, 4),
        (2, 1, 16, None, 0.7, 8),
    ],
)
def test_decode_attention_equals_attention_written_out(
    heads: int, kv_heads: int, dim: int, window: int | None, softcap: float | None, splits: int
) -> None:
    torch.manual_seed(0)
    lengths = [1, 2, 63, 64, 65, 200]
    keys, values = torch.randn(300, kv_heads, dim), torch.randn(300, kv_heads, dim)
    query = torch.randn(len(lengths), heads, dim)
    slots = torch.full((len(lengths), 256), 299, dtype=torch.int32)
    keys[299], values[299] = torch.nan, torch.nan  # whatever lies beyond a context must not matter
    for row, length in enumerate(lengths):
        slots[row, :length] = torch.randperm(299)[:length]

    found = decode_attention(
        query, keys, values, slots, torch.tensor(lengths, dtype=torch.int32), 0.3,
        window=window, softcap=softcap, splits=splits,
    )  # fmt: skip

    torch.testing.assert_close(
        found.double(), expected(query, keys, values, slots, lengths, window, softcap), rtol=1e-5, atol=1e-5
    )


def test_a_query_that_is_a_view_is_read_where_it_lies() -> None:
    """Transformers hands over a transposed tensor."""
    torch.manual_seed(1)
    stored = torch.randn(4, 3, 16)
    query, keys, values = stored.transpose(0, 1), torch.randn(20, 2, 16), torch.randn(20, 2, 16)
    slots = torch.arange(1, 13, dtype=torch.int32).view(3, 4)
    lengths = torch.tensor([4, 1, 3], dtype=torch.int32)

    found = decode_attention(query, keys, values, slots, lengths, 0.3)

    assert found.is_contiguous()
    torch.testing.assert_close(
        found.double(), expected(query, keys, values, slots, [4, 1, 3], None, None), rtol=1e-5, atol=1e-5
    )
