"""A family in training for retrieval: contrast (ITC), matching (ITM) and captions (LM) of a batch, whole or in chunks.

In chunks the loss and its gradient are those of the whole batch, but the activations of one chunk at a time are in the
memory. Source: gradient caching (Gao et al. 2021, arXiv:2101.06983): every chunk is embedded without keeping
activations; the contrastive loss of all vectors gives a gradient for each vector; every chunk is embedded again, with
activations, and its vectors' gradients go on to the weights. Matching and captions ride on that second pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cutline.core.errors import TrainingError
from cutline.families.base import Batch
from cutline.families.common.loss import IGNORED, widened
from cutline.families.common.retrieval import RetrievalFamily
from cutline.train import distributed as together
from cutline.train.contrast import before, gathered, sigmoid_loss, softmax_loss, total
from cutline.train.hard_negatives import Pairs, draw
from cutline.train.lengths import by_length
from cutline.train.momentum import Slow
from cutline.train.positives import Truth
from cutline.train.settings import RetrievalSettings

#: Pairs for each text of a chunk that are matched with their activations in memory; of more, some are computed twice.
MOST_PAIRS = 6


@dataclass
class RetrievalBatch:
    """N images with their R captions. Pixels stay in main memory until their chunk is seen.

    Attributes:
        visual: pixels or features, the first dimension N.
        captions: R texts, those of an image together, in the order of images.
        rows: int64 [R], the image of each text.
        pictures: int64 [N], numbers of the images' pictures, as ``Truth`` has them.
        texts: int64 [R], numbers of the captions' words.
        lm: a captioning batch for each chunk of images, without its visual part; empty where no captions are learnt.
    """

    visual: Batch
    captions: list[str]
    rows: Tensor
    pictures: Tensor
    texts: Tensor
    lm: list[Batch] = field(default_factory=list)


class Vectors(NamedTuple):
    images: Tensor  # [N, E], or [N, Q, E]
    texts: Tensor  # [R, E]


class _Keys(NamedTuple):
    """The momentum encoder's vectors of this batch, then the queue, and their numbers."""

    images: Tensor
    texts: Tensor
    pictures: Tensor
    words: Tensor


@dataclass
class Part:
    """What one forward and backward pass is made of.

    Attributes:
        batch: the whole batch.
        first, last: its range of images.
        totals: pairs to match and tokens to predict in the whole batch, over all processes.
        keys: of the momentum encoder.
        pairs: to match, when they are drawn already; images counted from ``first`` on.
        candidates: the captions of all processes, among which the texts of pairs have their places.
        random: the state in which this range was embedded the first time.
        pull: gradients of the contrastive loss for the vectors of this range, and for scale and offset.
    """

    batch: RetrievalBatch
    first: int
    last: int
    totals: dict[str, float]
    keys: _Keys | None = None
    pairs: Pairs | None = None
    candidates: Sequence[str] = ()
    random: _Random | None = None
    pull: tuple[Tensor | None, ...] | None = None
    #: The contrastive loss, reported with the last part.
    itc: Tensor | None = None

    @property
    def texts(self) -> tuple[int, int]:
        """The range of its captions."""
        first, last = torch.searchsorted(self.batch.rows, torch.tensor([self.first, self.last])).tolist()
        return first, last


class Retriever(nn.Module):
    """A module whose forward is the loss of a ``Part``.

    Args:
        family: its parts are open.
        settings: ``[train.retrieval]``.
        truth: which of the training captions are true for which images.

    Raises:
        TrainingError: the family can't do what the settings ask for.
    """

    def __init__(self, family: RetrievalFamily, settings: RetrievalSettings, truth: Truth):
        super().__init__()
        if not isinstance(family, RetrievalFamily):
            raise TrainingError(
                f"[train.retrieval]: this {family.name()} model can't embed images and texts.",
                "Give a checkpoint of clip, siglip, align, or a BLIP or BLIP-2 matcher, or leave the section out.",
            )
        self.family = family
        self.settings = settings
        self.truth = truth
        self.kind = family.contrast if settings.loss == "auto" else settings.loss
        self.weights = settings.weights(family.can)
        for name, task, words in (("itm", "match", "match pairs"), ("lm", "caption", "write captions")):
            if self.weights[name] and task not in family.can:
                raise TrainingError(
                    f"[train.retrieval] {name} = {self.weights[name]}, but this {family.name()} model can't {words}.",
                    f"Say {name} = 0.",
                )
        if self.kind == "sigmoid" and settings.momentum is not None:
            raise TrainingError(
                "[train.retrieval] momentum goes with the softmax loss; the sigmoid loss has no keys.",
                'Leave momentum out, or say loss = "softmax".',
            )
        #: of families that keep none in their model; 0.07 and learnt, as published
        self.temperature = nn.Parameter(torch.tensor(0.07, device=family.device)) if family.scale() is None else None
        self._slow = [Slow(family, settings.momentum, settings.queue)] if settings.momentum is not None else []
        #: Share of the momentum encoder's distribution in the target; the trainer raises it slowly.
        self.alpha = settings.alpha
        #: Of ITM's negatives, from 0 to 1; raised slowly, too.
        self.hardness = 1.0

    # ---- a batch as parts

    def parts(self, batch: RetrievalBatch) -> list[Part]:
        """The passes that a batch takes: one, or where it is cut into chunks one for each of them."""
        with torch.no_grad():
            self.family.bound_scale()
            if self.temperature is not None:
                self.temperature.clamp_(0.001, 0.5)
        count, size = len(batch.pictures), self.settings.mini_batch_size or len(batch.pictures)
        tokens = sum(int((lm["labels"] != IGNORED).sum()) for lm in batch.lm)
        totals = {"lm": total(tokens, self.family.device)} if batch.lm else {}
        parts = [Part(batch, first, min(first + size, count), totals) for first in range(0, count, size)]
        keys = self._keys(parts) if self._slow else None
        if len(parts) == 1:
            parts[0].keys = keys
        else:
            self._cache(parts, keys)
        return parts

    def _cache(self, parts: Sequence[Part], keys: _Keys | None) -> None:
        """The first pass over chunks: what the contrastive loss wants of each vector, and the pairs to match."""
        found = []
        for part in parts:
            part.random = _Random(self.family.device)
            with torch.no_grad():
                found.append(self._embed(self.family, part)[0])
        vectors = Vectors(*(torch.cat(some).requires_grad_() for some in zip(*found, strict=True)))
        batch = parts[0].batch
        with torch.enable_grad():
            scale = self._scale()
            itc = self._contrast(vectors, batch, keys, scale)
            wanted = [*vectors, *(one for one in scale if one is not None)]
            gradients = torch.autograd.grad(itc, [one for one in wanted if one.requires_grad], allow_unused=True)
        pairs, candidates = self._pairs(vectors, batch) if self.weights["itm"] else (None, [])
        images, texts, *learnt = gradients
        for part in parts:
            first, last = part.texts
            at_end = part is parts[-1]  # the pass in which processes tell one another their gradients
            part.pull = (images[part.first : part.last], texts[first:last], *(learnt if at_end else ()))
            part.pairs = pairs.of_images(part.first, part.last) if pairs else None
            part.candidates = candidates
            part.itc = itc.detach() if at_end else None
        if pairs:
            parts[0].totals["itm"] = total(len(pairs.labels), self.family.device)  # one dictionary for all parts

    # ---- forward

    def forward(self, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """What is to be differentiated, and what each loss came to (unweighted)."""
        batch = part.batch
        with part.random.again() if part.random else nullcontext():
            vectors, features = self._embed(self.family, part)
        loss = vectors.texts.new_zeros(())
        said: dict[str, Tensor] = {}
        if part.pull is None:
            itc = self._contrast(vectors, batch, part.keys, self._scale())
            said["itc"], loss = itc.detach(), loss + self.weights["itc"] * itc
            if self.weights["itm"]:
                part.pairs, part.candidates = self._pairs(vectors, batch)
                part.totals["itm"] = total(len(part.pairs.labels), self.family.device)
        else:
            learnt = [one for one in self._scale() if one is not None and one.requires_grad]
            for ours, pull in zip([*vectors, *learnt], part.pull, strict=False):
                if pull is not None and ours.requires_grad:
                    loss = loss + self.weights["itc"] * (ours * pull).sum()
            if part.itc is not None:
                said["itc"] = part.itc
        if part.pairs is not None:
            itm = self._match(part, features) / part.totals["itm"]
            said["itm"], loss = itm.detach(), loss + self.weights["itm"] * itm
        if self.weights["lm"]:
            lm = self._write(part, features) / part.totals["lm"]
            said["lm"], loss = lm.detach(), loss + self.weights["lm"] * lm
        return loss, said

    def _embed(self, family: RetrievalFamily, part: Part) -> tuple[Vectors, Batch]:
        """The vectors of a part, and what the vision tower said of it."""
        device = family.device
        visual = {name: tensor[part.first : part.last].to(device) for name, tensor in part.batch.visual.items()}
        seen = {"features": family.looked_at(visual)["features"]}
        first, last = part.texts
        texts = family.encode_texts(part.batch.captions[first:last])
        vectors = by_length(texts, lambda some, _: family.embed_texts(some))
        return Vectors(family.embed_images(seen), vectors), seen

    def _scale(self) -> tuple[Tensor, Tensor | None]:
        if self.temperature is not None:
            return 1 / self.temperature, None
        found = self.family.scale()
        assert found is not None
        return found

    def _contrast(
        self, vectors: Vectors, batch: RetrievalBatch, keys: _Keys | None, scale: tuple[Tensor, Tensor | None]
    ) -> Tensor:
        """The mean over queries of both directions, over all processes."""
        device = self.family.device
        numbers = batch.pictures.to(device), batch.texts.to(device)
        times, plus = scale
        with _exact(device):
            if keys is not None:
                return self._contrast_with_keys(vectors, numbers, keys, times)
            images, texts = gathered(vectors.images), gathered(vectors.texts)
            true = self.truth(gathered(numbers[0]), gathered(numbers[1]))
            logits = self.family.similarity(images, texts) * widened(times)
            if self.kind == "sigmoid":
                return sigmoid_loss(logits if plus is None else logits + widened(plus), true) / len(texts)
            return (softmax_loss(logits, true) / len(images) + softmax_loss(logits.T, true.T) / len(texts)) / 2

    def _contrast_with_keys(
        self, vectors: Vectors, numbers: tuple[Tensor, Tensor], keys: _Keys, times: Tensor
    ) -> Tensor:
        """This process's queries with the momentum encoder's keys of all of them."""
        device, similarity, loss = (
            self.family.device,
            self.family.similarity,
            torch.zeros((), device=vectors.texts.device),
        )
        pictures, words = numbers
        slow = keys.images[: len(pictures)], keys.texts[: len(words)]  # this process's own stand first
        directions = (
            (similarity(vectors.images, keys.texts), similarity(slow[0], keys.texts),
             self.truth(pictures, keys.words)),
            (similarity(keys.images, vectors.texts).T, similarity(keys.images, slow[1]).T,
             self.truth(keys.pictures, words).T),
        )  # fmt: skip
        for logits, soft, true in directions:
            found = softmax_loss(logits * widened(times), true, (soft * widened(times)).detach(), self.alpha)
            loss = loss + found / total(len(true), device)
        return loss / 2

    def _keys(self, parts: Sequence[Part]) -> _Keys:
        """Moves the momentum encoder on, and lets it embed the batch; what it says goes into the queues, too."""
        slow = self._slow[0]
        slow.follow()
        batch, device = parts[0].batch, self.family.device
        with torch.no_grad():
            found = [self._embed(slow.family, part)[0] for part in parts]
            numbers = batch.pictures.to(device), batch.texts.to(device)
            made = []
            for mine, which, queue in zip(
                (torch.cat(some) for some in zip(*found, strict=True)), numbers, (slow.images, slow.texts), strict=True
            ):
                # before the push: nothing of this batch is in the queue twice
                made.append(queue.join(*_own_first(mine, which)))
                queue.push(gathered(mine), gathered(which))
        (images, pictures), (texts, words) = made
        return _Keys(images, texts, pictures, words)

    def _pairs(self, vectors: Vectors, batch: RetrievalBatch) -> tuple[Pairs, list[str]]:
        """The pairs to match of this process's images, and the captions of all processes.

        They are drawn among the images and captions of all processes, by each of them alike; then each takes the
        pairs of its own images, so that of the others only captions have to be told.
        """
        device = self.family.device
        seed = int(torch.randint(2**62, ()))
        told = together.gather((batch.captions, seed))
        generator = torch.Generator(device).manual_seed(told[0][1])
        first = before(len(batch.pictures), device)
        with torch.no_grad(), _exact(device):
            images, texts = gathered(vectors.images.detach()), gathered(vectors.texts.detach())
            true = self.truth(gathered(batch.pictures.to(device)), gathered(batch.texts.to(device)))
            rows = gathered(batch.rows.to(device) + first)
            logits = self.family.similarity(images, texts) * widened(self._scale()[0])
            drawn = draw(logits, true, rows, generator, self.settings.itm_share, self.hardness)
        mine = drawn.of_images(first, first + len(batch.pictures))
        return mine, [caption for captions, _ in told for caption in captions]

    def _match(self, part: Part, features: Batch) -> Tensor:
        """The sum over the part's pairs of the cross-entropy of "it matches"."""
        pairs = part.pairs
        assert pairs is not None
        if not len(pairs.labels):  # none was drawn here; other processes still wait for the matching head's gradient
            nothing = torch.zeros(1, dtype=torch.int64, device=self.family.device)
            own = part.batch.captions[part.texts[0] :][:1]
            return 0 * self._match(replace(part, pairs=Pairs(nothing, nothing, nothing), candidates=own), features)
        texts = self.family.encode_texts([part.candidates[place] for place in pairs.texts.tolist()])
        match = self.family.match_logits

        def summed(some: Tensor) -> Tensor:
            these = {name: tensor[some] for name, tensor in texts.items()}
            logits = by_length(these, lambda few, places: match(features, few, pairs.images[some][places]))
            return F.cross_entropy(widened(logits), pairs.labels[some], reduction="sum")

        # three for each text on average; an image that many texts are taken for has more than memory may hold
        first, last = part.texts
        many = MOST_PAIRS * max(1, round(self.settings.itm_share * (last - first)))
        pieces = torch.split(torch.arange(len(pairs.labels), device=pairs.labels.device), many)
        if len(pieces) == 1:
            return summed(pieces[0])
        sums: list[Tensor] = [checkpoint(summed, piece, use_reentrant=False) for piece in pieces]
        return torch.stack(sums).sum()

    def _write(self, part: Part, features: Batch) -> Tensor:
        """The sum over the part's caption tokens of their negative log-likelihood, in nats."""
        size = self.settings.mini_batch_size or len(part.batch.pictures)
        lm = {name: tensor.to(self.family.device) for name, tensor in part.batch.lm[part.first // size].items()}
        return self.family(lm | features).nll  # type: ignore[no-any-return]

    # ---- what a checkpoint keeps beside the family's weights

    def state(self) -> dict[str, Tensor]:
        own = {} if self.temperature is None else {"temperature": self.temperature.detach()}
        return own | (self._slow[0].state() if self._slow else {})

    def restore(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            if self.temperature is not None:
                self.temperature.copy_(state["temperature"])
        if self._slow:
            self._slow[0].restore(state)


def _own_first(mine: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes, this one's in front, and whose they are."""
    every, whose = gathered(mine), gathered(owners)
    first = before(len(mine), mine.device)
    rest = torch.ones(len(every), dtype=torch.bool, device=mine.device)
    rest[first : first + len(mine)] = False
    return torch.cat([mine, every[rest]]), torch.cat([owners, whose[rest]])


def _exact(device: torch.device) -> torch.autocast:
    """Similarities are computed in float32 also where the rest is not."""
    return torch.autocast(device.type, enabled=False)


class _Random:
    """The state of the random numbers at one moment, so that dropout falls alike a second time."""

    def __init__(self, device: torch.device):
        self._devices = [device] if device.type == "cuda" else []
        self._cpu = torch.get_rng_state()
        self._cuda = [torch.cuda.get_rng_state(one) for one in self._devices]

    @contextmanager
    def again(self) -> Iterator[None]:
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self._cpu)
            for device, state in zip(self._devices, self._cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
