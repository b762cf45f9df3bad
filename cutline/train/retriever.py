"""A family in training for retrieval: contrast (ITC), matching (ITM) and captions (LM) of a batch, whole or in chunks.

In chunks the loss and its gradient are those of the whole batch, but the activations of one chunk at a time are in the
memory. Source: gradient caching (Gao et al. 2021, arXiv:2101.06983): every chunk is embedded without keeping
activations; the contrastive loss of all vectors gives a gradient for each vector; every chunk is embedded again, with
activations, and its vectors' gradients go on to the weights. Matching and captions ride on that second pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cutline.errors import TrainingError
from cutline.families.base import Batch
from cutline.families.common.loss import IGNORED
from cutline.families.common.retrieval import RetrievalFamily
from cutline.train import together
from cutline.train.contrast import before, gathered, sigmoid_loss, softmax_loss, total
from cutline.train.hard_negatives import Pairs, draw
from cutline.train.lengths import by_length
from cutline.train.momentum import Slow
from cutline.train.settings import RetrievalSettings


@dataclass
class RetrievalBatch:
    """N images with their R captions. Pixels stay in main memory until their chunk is seen.

    Attributes:
        visual: pixels or features, the first dimension N.
        captions: R texts, those of an image together, in the order of images.
        rows: int64 [R], the image of each text.
        places: int64 [N], which sample each image is.
        lm: a captioning batch for each chunk of images, without its visual part; empty where no captions are learnt.
    """

    visual: Batch
    captions: list[str]
    rows: Tensor
    places: Tensor
    lm: list[Batch] = field(default_factory=list)


class Vectors(NamedTuple):
    images: Tensor  # [N, E], or [N, Q, E]
    texts: Tensor  # [R, E]


class _Keys(NamedTuple):
    """The momentum encoder's vectors of this batch, then the queue, and whose they are."""

    images: Tensor
    texts: Tensor
    image_owners: Tensor
    text_owners: Tensor


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

    Raises:
        TrainingError: the family can't do what the settings ask for.
    """

    def __init__(self, family: RetrievalFamily, settings: RetrievalSettings):
        super().__init__()
        if not isinstance(family, RetrievalFamily):
            raise TrainingError(
                f"[train.retrieval]: this {family.name()} model can't embed images and texts.",
                "Give a checkpoint of clip, siglip, align, or a BLIP or BLIP-2 matcher, or leave the section out.",
            )
        self.family = family
        self.settings = settings
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
        self.distill = settings.distill

    # ---- a batch as parts

    def parts(self, batch: RetrievalBatch) -> list[Part]:
        """The passes that a batch takes: one, or where it is cut into chunks one for each of them."""
        with torch.no_grad():
            self.family.bound_scale()
            if self.temperature is not None:
                self.temperature.clamp_(0.001, 0.5)
        count, size = len(batch.places), self.settings.chunk or len(batch.places)
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
        owners = batch.places.to(device), batch.places[batch.rows].to(device)
        times, plus = scale
        with _exact(device):
            if keys is not None:
                return self._contrast_with_keys(vectors, owners, keys, times)
            images, texts = gathered(vectors.images), gathered(vectors.texts)
            image_owners, text_owners = gathered(owners[0]), gathered(owners[1])
            logits = self.family.similarity(images, texts) * times.float()
            true = image_owners[:, None] == text_owners
            if self.kind == "sigmoid":
                return sigmoid_loss(logits if plus is None else logits + plus.float(), true) / len(texts)
            return (softmax_loss(logits, true) / len(images) + softmax_loss(logits.T, true.T) / len(texts)) / 2

    def _contrast_with_keys(
        self, vectors: Vectors, owners: tuple[Tensor, Tensor], keys: _Keys, times: Tensor
    ) -> Tensor:
        """This process's queries with the momentum encoder's keys of all of them."""
        device, similarity, loss = (
            self.family.device,
            self.family.similarity,
            torch.zeros((), device=vectors.texts.device),
        )
        slow = keys.images[: len(owners[0])], keys.texts[: len(owners[1])]  # this process's own stand first
        directions = (
            (similarity(vectors.images, keys.texts), similarity(slow[0], keys.texts), owners[0], keys.text_owners),
            (similarity(keys.images, vectors.texts).T, similarity(keys.images, slow[1]).T, owners[1],
             keys.image_owners),
        )  # fmt: skip
        for logits, soft, mine, theirs in directions:
            true = mine[:, None] == theirs
            found = softmax_loss(logits * times.float(), true, (soft * times.float()).detach(), self.distill)
            loss = loss + found / total(len(mine), device)
        return loss / 2

    def _keys(self, parts: Sequence[Part]) -> _Keys:
        """Moves the momentum encoder on, and lets it embed the batch; what it says goes into the queues, too."""
        slow = self._slow[0]
        slow.follow()
        batch, device = parts[0].batch, self.family.device
        with torch.no_grad():
            found = [self._embed(slow.family, part)[0] for part in parts]
            owners = batch.places.to(device), batch.places[batch.rows].to(device)
            made = []
            for mine, whose, queue in zip(
                (torch.cat(some) for some in zip(*found, strict=True)), owners, (slow.images, slow.texts), strict=True
            ):
                # before the push: nothing of this batch is in the queue twice
                made.append(queue.join(*_own_first(mine, whose)))
                queue.push(gathered(mine), gathered(whose))
        (images, image_owners), (texts, text_owners) = made
        return _Keys(images, texts, image_owners, text_owners)

    def _pairs(self, vectors: Vectors, batch: RetrievalBatch) -> tuple[Pairs, list[str]]:
        """The pairs to match of this process's images, and the captions of all processes.

        They are drawn among the images and captions of all processes, by each of them alike; then each takes the
        pairs of its own images, so that of the others only captions have to be told.
        """
        device = self.family.device
        seed = int(torch.randint(2**62, ()))
        told = together.gather((batch.captions, seed))
        generator = torch.Generator(device).manual_seed(told[0][1])
        first = before(len(batch.places), device)
        with torch.no_grad(), _exact(device):
            images, texts = gathered(vectors.images.detach()), gathered(vectors.texts.detach())
            owners, rows = gathered(batch.places.to(device)), gathered(batch.rows.to(device) + first)
            logits = self.family.similarity(images, texts) * self._scale()[0].float()
            drawn = draw(logits, owners[:, None] == owners[rows], rows, generator, self.settings.itm_share)
        mine = drawn.of_images(first, first + len(batch.places))
        return mine, [caption for captions, _ in told for caption in captions]

    def _match(self, part: Part, features: Batch) -> Tensor:
        """The sum over the part's pairs of the cross-entropy of "it matches"."""
        pairs = part.pairs
        assert pairs is not None
        texts = self.family.encode_texts([part.candidates[place] for place in pairs.texts.tolist()])
        match = self.family.match_logits
        logits = by_length(texts, lambda some, places: match(features, some, pairs.images[places]))
        return F.cross_entropy(logits.float(), pairs.labels, reduction="sum")

    def _write(self, part: Part, features: Batch) -> Tensor:
        """The sum over the part's caption tokens of their negative log-likelihood, in nats."""
        size = self.settings.chunk or len(part.batch.places)
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
