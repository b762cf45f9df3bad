"""The losses of training for retrieval: cut into chunks they are those of the whole; a true pair is no negative."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from cutline import families
from cutline.core.records import Sample
from cutline.families.blip import BlipMatcher
from cutline.families.clip import Clip
from cutline.families.open import find
from cutline.train.contrast import Queue, sigmoid_loss, softmax_loss
from cutline.train.hard_negatives import Pairs, draw
from cutline.train.lengths import by_length
from cutline.train.objective import Context, Step
from cutline.train.positives import PositivePairs
from cutline.train.retriever import RetrievalLearner
from cutline.train.settings import TrainSettings
from cutline.train.trainable import open_parts

KINDS = [kind for name in families.names() for kind in find(name).variants() if "embed" in kind.tasks]


def samples(dataset):
    """Twelve images, of which two are the same, with one to three captions each."""
    found = []
    for index, sample in enumerate(list(dataset.split("train"))[:11]):
        captions = [sample.captions[0], "a picture of shapes", "two things"][: 1 + index % 3]
        found.append(sample.__class__(id=sample.id, image=sample.image, captions=tuple(captions), split="train",
                                      extra={"index": index}))  # fmt: skip
    return [*found, found[3]]


def made(kind, dtype=torch.float32, **settings):
    torch.manual_seed(0)
    family = kind.tiny(["a red circle above a blue square"], seed=0)
    for module in family.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    open_parts(family.to(dtype), {})
    return RetrievalLearner(TrainSettings(retrieval=settings), Context(family, [])).to(dtype)


def batched(retriever, some):
    retriever.space.positives = PositivePairs(some)
    return retriever.collator()(some)["batch"]


def chunks_of(retriever, batch):
    return retriever.chunks({"batch": batch}, list, Step())


def gradients(retriever, batch, train=True):
    torch.manual_seed(1)
    retriever.train(train)
    retriever.zero_grad(set_to_none=True)
    said: dict[str, float] = {}
    for chunk in chunks_of(retriever, batch):
        made = retriever(chunk)
        made.loss.backward()
        for name, value in made.terms.items():
            said[name] = said.get(name, 0.0) + float(value)
    return said, {n: p.grad.clone() for n, p in retriever.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name()}-{kind.__name__}")
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_chunks_have_the_loss_and_gradient_of_the_whole_batch(dataset, kind, momentum):
    """In float64, where nothing is lost in rounding; in float32 the difference is that of sums in another order."""
    if momentum and kind.contrast == "sigmoid":
        pytest.skip("the sigmoid loss has no keys")
    lm = 0.5 if "caption" in kind.tasks else 0.0
    settings = {
        "lm": lm,
        "momentum": momentum,
        "alpha": 0.4 if momentum else 0.0,
        "queue": 8 if momentum else 0,
        "alpha_warmup": 0,
    }
    found = {}
    for chunk in (None, 5, 1):
        retriever = made(kind, torch.float64, mini_batch_size=chunk, **settings)
        batch = batched(retriever, samples(dataset))
        # statistics of a BatchNorm depend on what is in a batch together, so they stand still here
        found[chunk] = gradients(retriever, batch, train=kind.name() != "align")
    losses, whole = found[None]
    assert {"itc"} <= losses.keys()
    assert ("itm" in losses) == ("match" in kind.tasks)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3
    norm = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    assert norm > 1e-2
    for chunk in (5, 1):
        assert found[chunk][0] == pytest.approx(losses, rel=1e-9, abs=1e-9)
        assert found[chunk][1].keys() == whole.keys()
        apart = torch.stack([(found[chunk][1][name] - gradient).norm() for name, gradient in whole.items()]).norm()
        assert apart / norm < 1e-7  # SigLIP 2 resizes its position embeddings in float32


@pytest.mark.parametrize("kind", [Clip, BlipMatcher])
def test_chunks_are_as_exact_in_float32(dataset, kind):
    (losses, whole), (cut, parts) = (
        gradients(retriever, batched(retriever, samples(dataset)))
        for retriever in (made(kind), made(kind, mini_batch_size=5))
    )
    assert cut == pytest.approx(losses, abs=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=1e-5)


def test_dropout_falls_alike_in_both_passes(dataset):
    """Else the gradient would be of vectors that the loss never saw."""
    retriever = made(BlipMatcher, mini_batch_size=4, itm=0.0)
    for module in retriever.family.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    batch = batched(retriever, samples(dataset))
    retriever.train()
    torch.manual_seed(3)
    chunks = chunks_of(retriever, batch)
    torch.manual_seed(3)  # as the first pass went
    for chunk in chunks:
        first = retriever.space.embed(chunk)[0].texts
        with chunk.random.again():
            second = retriever.space.embed(chunk)[0].texts
        assert torch.equal(first, second)
        with torch.random.fork_rng():
            assert not torch.equal(first, retriever.space.embed(chunk)[0].texts)


def peak(retriever, batch):
    """The most bytes that autograd kept at one moment."""
    kept, most = 0, 0

    class Saved:
        def __init__(self, tensor):
            nonlocal kept, most
            self.tensor, self.bytes = tensor, tensor.numel() * tensor.element_size()
            kept += self.bytes
            most = max(most, kept)

        def __del__(self):
            nonlocal kept
            kept -= self.bytes

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        gradients(retriever, batch)
    return most


def test_what_is_kept_for_the_gradient_does_not_grow_with_the_batch(dataset):
    few = samples(dataset)[:4]
    # the same images again and again, each time as others
    many = [one.__class__(id=f"{one.id}-{n}", image=one.image, captions=one.captions,
                          extra={"index": 4 * n + index, "sha256": f"{n}-{index}"})
            for n in range(6) for index, one in enumerate(few)]  # fmt: skip
    kept = {}
    for name, some, chunk in (("few", few, 2), ("many", many, 2), ("many whole", many, None)):
        retriever = made(BlipMatcher, mini_batch_size=chunk, itm=0.0)
        kept[name] = peak(retriever, batched(retriever, some))
    assert kept["many"] < 1.1 * kept["few"]
    assert kept["many whole"] > 6 * kept["few"]


def test_an_image_that_every_text_is_taken_for_does_not_fill_the_memory(dataset, monkeypatch):
    """Its chunk has most of the batch's pairs; the loss and the gradient are those of all of them."""
    monkeypatch.setattr(
        "cutline.train.hard_negatives.draw",
        lambda logits, true, rows, *_: Pairs(torch.zeros_like(rows), torch.arange(len(rows)), (rows == 0).long()),
    )
    found, kept = {}, {}
    for most in (2, 100):
        monkeypatch.setattr("cutline.train.objectives.itm.MOST_PAIRS", most)
        retriever = made(BlipMatcher, torch.float64, mini_batch_size=2)
        batch = batched(retriever, samples(dataset))
        kept[most] = peak(retriever, batch)
        found[most] = gradients(retriever, batch)
    assert kept[2] < 0.6 * kept[100]
    assert found[2][0] == pytest.approx(found[100][0], rel=1e-9)
    for name, gradient in found[100][1].items():
        torch.testing.assert_close(found[2][1][name], gradient, rtol=1e-9, atol=1e-12)


def test_a_chunk_of_which_nothing_is_drawn_for_matching(dataset):
    retriever = made(BlipMatcher, mini_batch_size=1, itm_share=0.01)
    said, found = gradients(retriever, batched(retriever, samples(dataset)))
    assert said["itm"] > 0
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_pictures_and_words_decide_what_is_true():
    """However a batch comes together, a caption that people wrote for a picture is no negative of it."""

    def sample(id, *captions, picture=""):
        return Sample(id=id, image=f"{id}.png", captions=captions, extra={"sha256": picture or id})

    truth = PositivePairs([
        sample("a", "A dog runs.", "two dogs"), sample("b", "a cat", "a DOG runs"),
        sample("a again", "in the snow", picture="a"), sample("c", "🙂"), sample("d", "🐈"),
    ])  # fmt: skip
    assert truth.images == [0, 1, 0, 2, 3]
    words = ["a dog runs!", "two dogs", "A cat", "in the snow", "🙂", "🐈"]
    true = truth(torch.tensor([0, 1, 2, 3, 0]), torch.tensor(truth.texts(words)))
    assert true.int().tolist() == [
        [1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1], [1, 1, 0, 1, 0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_the_same_words_of_another_image_are_no_negative(dataset, momentum, monkeypatch):
    """Neither in the contrastive loss, nor among the keys, nor among the hard negatives."""
    first, second, third = list(dataset.split("train"))[:3]
    some = [
        Sample(id=one.id, image=one.image, captions=captions, extra=dict(one.extra) | {"index": index})
        for index, (one, captions) in enumerate(
            [(first, ("a drawing", "a shape")), (second, ("A drawing.",)), (third, ("this is another",))]
        )
    ]
    told, drawn = [], []
    plain_loss, plain_draw = softmax_loss, draw
    monkeypatch.setattr(
        "cutline.train.contrast.softmax_loss",
        lambda logits, true, *rest: (told.append(true), plain_loss(logits, true, *rest))[1],
    )
    monkeypatch.setattr(
        "cutline.train.hard_negatives.draw",
        lambda logits, true, *rest: (drawn.append((true, plain_draw(logits, true, *rest))), drawn[-1][1])[1],
    )
    retriever = made(BlipMatcher, momentum=momentum, queue=4 if momentum else 0)
    for _ in range(2):
        gradients(retriever, batched(retriever, some))
    expected = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1]]).bool()
    assert torch.equal(told[0], expected)
    assert torch.equal(told[1], expected.T)
    if momentum:  # what is in the queue from the step before is true for the same
        assert torch.equal(told[2], torch.cat([expected, expected], 1))
    for true, pairs in drawn:
        assert torch.equal(true, expected)
        negative = pairs.labels == 0
        assert not true[pairs.images[negative], pairs.texts[negative]].any()


def test_softmax_is_clips_with_one_caption_an_image_and_shares_the_target_among_several():
    torch.manual_seed(0)
    logits = torch.randn(4, 4)
    own = torch.eye(4, dtype=torch.bool)
    expected = F.cross_entropy(logits, torch.arange(4), reduction="sum")
    torch.testing.assert_close(softmax_loss(logits, own), expected)
    both = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(softmax_loss(logits[:1], both), -logits[:1].log_softmax(1)[0, :2].mean())
    # a target that is wholly another model's distribution
    soft = torch.randn(4, 4)
    expected = F.cross_entropy(logits, soft.softmax(1), reduction="sum")
    torch.testing.assert_close(softmax_loss(logits, own, soft, 1.0), expected)


def test_sigmoid_is_siglips():
    torch.manual_seed(0)
    logits, own = torch.randn(3, 3), torch.eye(3, dtype=torch.bool)
    signs = 2 * torch.eye(3) - 1
    torch.testing.assert_close(sigmoid_loss(logits, own), -F.logsigmoid(signs * logits).sum())


def test_a_caption_of_the_same_image_does_not_push_away():
    """The gradient draws an image to all of its captions, though only other images' captions differ."""
    logits = torch.zeros(1, 4, requires_grad=True)
    true = torch.tensor([[True, True, False, False]])
    softmax_loss(logits, true).backward()
    assert logits.grad is not None
    assert (logits.grad[0, :2] < 0).all()
    assert (logits.grad[0, 2:] > 0).all()


def test_hard_negatives_are_never_true_and_mostly_near():
    torch.manual_seed(0)
    rows = torch.tensor([0, 0, 1, 2, 2, 3])  # image 3 is image 0 once more
    places = torch.tensor([7, 8, 9, 7])
    true = places[:, None] == places[rows]
    logits = torch.randn(4, 6)
    logits[1, 3] = 8.0  # the text that is taken for image 1's
    drawn = [draw(logits, true, rows) for _ in range(200)]
    for pairs in drawn:
        assert (true[pairs.images, pairs.texts] == pairs.labels.bool()).all()
        assert int(pairs.labels.sum()) == 6
        assert len(pairs.labels) == 18
        assert (pairs.images.diff() >= 0).all()
        assert sorted(pairs.texts[pairs.labels == 1].tolist()) == list(range(6))
    near = sum(bool(((p.images == 1) & (p.texts == 3)).any()) for p in drawn)
    assert near > 190
    any_one = [draw(logits, true, rows, hardness=0.0) for _ in range(200)]  # one of five texts
    assert sum(bool(((p.images == 1) & (p.texts == 3)).any()) for p in any_one) < 150


def test_a_share_of_the_texts_has_pairs_and_all_may_be_negatives():
    torch.manual_seed(0)
    rows = torch.arange(40) // 2
    true = torch.arange(20)[:, None] == rows
    asked, negatives = set(), set()
    for _ in range(20):
        pairs = draw(torch.zeros(20, 40), true, rows, share=0.25)
        own = pairs.texts[pairs.labels == 1]
        assert len(own) == 10
        assert len(pairs.labels) == 30
        assert (true[pairs.images, pairs.texts] == pairs.labels.bool()).all()
        asked |= set(own.tolist())
        negatives |= set(pairs.texts.tolist()) - set(own.tolist())
    assert len(asked) == 40
    assert len(negatives) > 35


def test_texts_of_like_length_are_computed_together_and_come_back_in_order():
    """Without the padding that the longest of all would need."""
    lengths = torch.tensor([3 + (7 * n) % 19 for n in range(100)])
    ids = torch.arange(100)[:, None].expand(100, 21)
    texts = {"input_ids": ids, "attention_mask": (torch.arange(21) < lengths[:, None]).long()}
    widths = []

    def compute(some, places):
        widths.append(some["input_ids"].shape[1])
        assert torch.equal(some["input_ids"][:, 0], places)
        return torch.stack([places, some["attention_mask"].sum(1)], 1)

    found = by_length(texts, compute)
    assert torch.equal(found, torch.stack([torch.arange(100), lengths], 1))
    assert len(widths) == 4
    assert widths == sorted(widths)
    assert widths[0] < 10
    whole = by_length({"input_ids": ids}, lambda some, places: places)  # here padding counts
    assert torch.equal(whole, torch.arange(100))


def test_a_batch_of_one_image_has_no_negatives():
    pairs = draw(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), torch.zeros(3, dtype=torch.int64))
    assert pairs.labels.tolist() == [1, 1, 1]


def test_a_negative_is_found_though_the_true_pair_has_all_the_probability():
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    pairs = draw(logits, torch.eye(2, dtype=torch.bool), torch.arange(2))
    assert pairs.labels.tolist().count(0) == 4


def test_momentum_queue_and_soft_targets_are_the_published_ones(dataset):
    """Five steps beside the published procedure written plainly, with a queue that is full after two of them."""
    torch.manual_seed(0)
    retriever = made(BlipMatcher, momentum=0.9, queue=5, alpha=0.4, alpha_warmup=0, itm=0.0)
    family, shots = retriever.family, list(dataset.split("train"))[:6]
    known = [
        Sample(id=one.id, image=one.image, captions=(f"one of {n}", f"two of {n}"), extra={**one.extra, "index": n})
        for n, one in enumerate(shots)
    ]
    retriever.space.positives = PositivePairs(known)
    collate = retriever.collator()
    slow = copy.deepcopy(family).eval()
    image_keys, text_keys, owners = torch.zeros(0, 16), torch.zeros(0, 16), torch.zeros(0, dtype=torch.int64)
    optimizer = torch.optim.SGD([p for p in family.parameters() if p.requires_grad], lr=0.05)
    for step, who in enumerate([(0, 1, 2), (3, 3, 4), (5, 0, 1), (2, 2, 2), (4, 5, 0)]):
        shown = [replace(known[n], captions=known[n].captions[(step + n) % 2 :][:1]) for n in who]
        batch = collate(shown)["batch"]
        with torch.no_grad():
            for own, theirs in zip(slow.model.parameters(), family.model.parameters(), strict=True):
                own.mul_(0.9).add_(theirs, alpha=0.1)
            texts, now = family.encode_texts(batch.captions), torch.tensor(who)
            image_keys = torch.cat([slow.embed_images(dict(batch.visual)), image_keys])
            text_keys = torch.cat([slow.embed_texts(texts), text_keys])
            owners = torch.cat([now, owners])
            same = (now[:, None] == owners).float()
            same = same / same.sum(1, keepdim=True)
            sums = []
            for fast, keys, others in (
                (family.embed_images(dict(batch.visual)), image_keys, text_keys),
                (family.embed_texts(texts), text_keys, image_keys),
            ):
                target = 0.4 * (keys[:3] @ others.T / 0.07).softmax(1) + 0.6 * same
                sums.append(-((fast @ others.T / 0.07).log_softmax(1) * target).sum(1).mean())
            image_keys, text_keys, owners = image_keys[:5], text_keys[:5], owners[:5]
        optimizer.zero_grad()
        retriever.train()
        (chunk,) = chunks_of(retriever, batch)
        made_of = retriever(chunk)
        torch.testing.assert_close(made_of.terms["itc"], sum(sums) / 2)
        made_of.loss.backward()
        optimizer.step()


def test_the_queue_holds_the_newest_with_whose_they_are():
    queue = Queue(3)
    assert queue.join(torch.ones(1, 2), torch.tensor([5]))[1].tolist() == [5]
    queue.push(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 2]))
    queue.push(torch.tensor([[3.0], [4.0]]), torch.tensor([3, 4]))
    vectors, owners = queue.join(torch.tensor([[9.0]]), torch.tensor([9]))
    assert owners.tolist() == [9, 3, 4, 1]
    assert vectors[:, 0].tolist() == [9, 3, 4, 1]
    again = Queue(3)
    again.restore("images", queue.state("images"))
    assert again.join(torch.tensor([[9.0]]), torch.tensor([9]))[1].tolist() == [9, 3, 4, 1]
