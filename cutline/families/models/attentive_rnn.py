"""The recurrent half of Show, Attend and Tell (Xu et al. 2015): memory, attention over the grid, LSTM or GRU.

Letters in shape comments: N images, R caption rows, L steps, T grid cells, C channels of the vision tower, M width of
the memory, K width of the attention, E of the embeddings, D of the recurrent state, G gates (LSTM 4, GRU 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput

from cutline.families.models.cnn_rnn_config import GATES, CnnRnnConfig


@dataclass
class Memory(ModelOutput):
    """What the recurrence reads of an image. `last_hidden_state` is the memory [N, T, M]; its name is the one that
    Hugging Face's `generate` looks for in `encoder_outputs`."""

    # ModelOutput wants a default for every field but one; they are always set.
    last_hidden_state: torch.Tensor  # [N, T, M]
    attention_keys: torch.Tensor = None  # type: ignore[assignment]  # [N, T, K]
    hidden: torch.Tensor = None  # type: ignore[assignment]  # [N, D], the initial state
    cell: torch.Tensor | None = None  # [N, D], for an LSTM

    def rows(self, index: torch.Tensor) -> Memory:
        """The memory of image index[r] for each row r: [R, ...] of [N, ...]."""
        return Memory(**{name: value.index_select(0, index) for name, value in self.items()})


@dataclass
class RecurrentState:
    """The past of a recurrent decoder: one vector a row, however much was said. For `generate` it is the cache."""

    hidden: torch.Tensor  # [R, D]
    cell: torch.Tensor | None  # [R, D], for an LSTM
    length: int = 0  # steps so far

    is_compileable = False  # asked by generate()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row r goes on from what row beam_idx[r] said. The memory stays: beams never change their image."""
        self.hidden = self.hidden.index_select(0, beam_idx)
        self.cell = None if self.cell is None else self.cell.index_select(0, beam_idx)


class Bridge(nn.Module):
    """Vision features [N, T, C] to the memory that the decoder attends to and starts from.

    Xu et al. attend to the raw features. A layer norm and a learnt projection in front cost little, free the decoder of
    the tower's scale and width, and are a place for dropout.
    """

    def __init__(self, config: CnnRnnConfig, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(config.feature_dropout)
        self.project = nn.Linear(channels, config.memory_size)
        self.key = nn.Linear(config.memory_size, config.attention_size)
        self.initial_hidden = nn.Linear(config.memory_size, config.hidden_size)
        self.initial_cell = nn.Linear(config.memory_size, config.hidden_size) if config.cell == "lstm" else None

    def forward(self, features: torch.Tensor) -> Memory:
        features = features.to(self.project.weight.dtype)  # caches are fp16
        memory = F.relu(self.project(self.dropout(self.norm(features))))  # [N, T, M]
        mean = memory.mean(1)
        cell = None if self.initial_cell is None else torch.tanh(self.initial_cell(mean))
        return Memory(
            last_hidden_state=memory,
            attention_keys=self.key(memory),
            hidden=torch.tanh(self.initial_hidden(mean)),
            cell=cell,
        )


class Cell(nn.Module):
    """LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014), fed with gate inputs already summed.

    `nn.LSTMCell` would multiply the embedding by its weights at each step; the decoder does that for all steps at once.
    """

    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        self.recur = nn.Linear(size, GATES[kind] * size)

    def forward(
        self, gates: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """gates [R, G * D] from embedding and context, hidden and cell [R, D] -> the next hidden and cell."""
        recurrent = self.recur(hidden)
        if cell is not None:
            gates = gates + recurrent
            keep_in, forget, out = gates[:, : 3 * self.size].sigmoid().chunk(3, dim=1)
            cell = forget * cell + keep_in * gates[:, 3 * self.size :].tanh()
            return out * cell.tanh(), cell
        both = 2 * self.size
        reset, update = (gates[:, :both] + recurrent[:, :both]).sigmoid().chunk(2, dim=1)
        candidate = torch.tanh(gates[:, both:] + reset * recurrent[:, both:])
        return candidate + update * (hidden - candidate), None


class Attention(nn.Module):
    """Soft attention over the grid with Xu's gate beta, which says how much of the image the next word needs.

    "additive" is the paper's (Bahdanau's) score v . tanh(W h + U a); "dot" is a scaled dot product, several times
    cheaper on a CPU because no [R, T, K] tensor is made at each step.
    """

    def __init__(self, config: CnnRnnConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.attention_size, bias=False)
        self.score = nn.Linear(config.attention_size, 1, bias=False) if config.attention == "additive" else None
        self.gate = nn.Linear(config.hidden_size, config.memory_size if config.gate == "channel" else 1)

    def forward(
        self, hidden: torch.Tensor, memory: torch.Tensor, keys: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden [R, D], memory [R, T, M], keys [R, T, K] -> gated context [R, M], attention weights [R, T]."""
        query = self.query(hidden)  # [R, K]
        if self.score is not None:
            scores = self.score(torch.tanh(keys + query[:, None])).squeeze(-1)
        else:
            scores = torch.bmm(keys, query[:, :, None]).squeeze(-1) * keys.shape[-1] ** -0.5
        alphas = scores.softmax(-1)  # [R, T]
        context = torch.bmm(alphas[:, None], memory).squeeze(1)  # [R, M]
        return torch.sigmoid(self.gate(hidden)) * context, alphas


class AttentiveDecoder(nn.Module):
    """Words in, "deep output" vectors out, one step after the other."""

    def __init__(self, config: CnnRnnConfig) -> None:
        super().__init__()
        gates = GATES[config.cell] * config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.embedding_to_gates = nn.Linear(config.embedding_size, gates)
        self.context_to_gates = nn.Linear(config.memory_size, gates, bias=False)
        self.attention = Attention(config)
        self.cell = Cell(config.cell, config.hidden_size)
        self.hidden_to_output = nn.Linear(config.hidden_size, config.embedding_size)
        self.context_to_output = nn.Linear(config.memory_size, config.embedding_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        memory: Memory,
        ids: torch.Tensor,
        state: RecurrentState | None = None,
        alive: list[int] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, RecurrentState]:
        """ids [R, L] after `state` (or the start) -> outputs [R, L, E], attention weights [R, L, T], the new state.

        alive: when rows are sorted by length, longest first, how many of them still go on at each step. The others are
        skipped, and what is returned for their steps means nothing.

        Only what depends on the recurrence is inside the loop. Rows never meet, and a step sees only earlier ones, so
        what stands after a caption's end (padding) cannot change what stands before it.
        """
        if state is None:
            state = RecurrentState(memory.hidden, memory.cell)
        rows, steps = ids.shape
        alive = [rows] * steps if alive is None else alive
        hidden, cell = state.hidden, state.cell
        cells, keys = memory.last_hidden_state, memory.attention_keys
        # P = the sum of alive: the real steps of all rows one after the other, step by step
        words = self.dropout(self.embedding(torch.cat([ids[:n, step] for step, n in enumerate(alive)])))  # [P, E]
        hiddens, contexts, weights = [], [], []
        for gates in self.embedding_to_gates(words).split(alive):
            n = len(gates)
            if n < len(hidden):  # each slice costs a copy of the memory's size in backward, so only where rows end
                hidden, cells, keys = hidden[:n], cells[:n], keys[:n]
                cell = None if cell is None else cell[:n]
            context, alphas = self.attention(hidden, cells, keys)
            hidden, cell = self.cell(gates + self.context_to_gates(context), hidden, cell)
            hiddens.append(hidden)
            contexts.append(context)
            weights.append(alphas)
        deep = self.hidden_to_output(self.dropout(torch.cat(hiddens))) + self.context_to_output(torch.cat(contexts))
        outputs = self.dropout(torch.tanh(words + deep)).split(alive)  # [P, E] -> L times [n, E]
        return _stack(outputs, rows), _stack(weights, rows), RecurrentState(hidden, cell, state.length + steps)


def _stack(steps: Sequence[torch.Tensor], rows: int) -> torch.Tensor:
    """L tensors [n, width], n <= R -> [R, L, width], zero where a step has no such row."""
    return torch.stack([F.pad(step, (0, 0, 0, rows - len(step))) for step in steps], dim=1)
