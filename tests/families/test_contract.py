"""What every family must do, run over the miniature of each family that the folder holds."""

from __future__ import annotations

import math

import pytest
import torch

from cutline import families
from cutline.core.records import Sample
from cutline.families.base import Family
from cutline.families.common.loss import IGNORED
from cutline.families.common.vision_fingerprint import vision_fingerprint
from cutline.families.forced_decoding import ForcedDecoding
from cutline.families.open import find
from cutline.families.settings import GenerateSettings, LoraSettings
from cutline.families.weights import adapters
from cutline.train.trainable import open_parts, partition
from tests.conftest import drawing

CAPTIONS = ("a red circle above a blue square", "a green triangle", "a yellow square to the left of a red circle")


KINDS = [kind for name in families.names() for kind in find(name).variants() if "caption" in kind.tasks]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind.name()}-{kind.__name__}")
def family(request) -> Family:
    made = request.param.tiny().eval()
    torch.manual_seed(2)  # one with which no caption that is drawn holds an image token
    # some fresh weights are near zero, and then every image and word looks the same
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if made.part_of(name) != "vision":
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return made


def samples(captions=CAPTIONS) -> list[Sample]:
    return [Sample(id=str(n), image="", captions=(text,)) for n, text in enumerate(captions)]


def pictures(count: int = 3):
    # of different shapes, so that models of native resolution have rows of different lengths
    return [drawing(n, (64 + 16 * n, 64)) for n in range(count)]


def nll(family: Family, batch) -> float:
    with torch.no_grad():
        return float(family.loss(batch).nll)


def test_parts_take_every_parameter_once(family):
    found = partition(family)
    names = [name for parameters in found.values() for name, _ in parameters]
    assert sorted(names) == sorted(name for name, _ in family.model.named_parameters())
    assert set(found) >= {"vision", "text"}
    assert found["vision"]
    assert found["text"]


def test_labels_are_caption_and_one_end_token(family):
    batch = family.collate(samples(), with_targets=True, images=pictures())
    for labels, caption in zip(batch["labels"], CAPTIONS, strict=True):
        targets = labels[labels != IGNORED].tolist()
        assert targets[-1] in family.end_ids
        assert sum(token in family.end_ids for token in targets) == 1
        assert family.tokenizer.decode(targets[:-1], skip_special_tokens=True).strip() == caption


def test_several_captions_of_an_image_are_rows_of_it(family):
    both = [Sample(id="0", image="", captions=CAPTIONS[:2]), Sample(id="1", image="", captions=CAPTIONS[2:])]
    images = pictures(2)
    together = nll(family, family.collate(both, with_targets=True, images=images))
    rows = [(CAPTIONS[0], images[0]), (CAPTIONS[1], images[0]), (CAPTIONS[2], images[1])]
    apart = sum(nll(family, family.collate(samples((text,)), with_targets=True, images=[i])) for text, i in rows)
    assert together == pytest.approx(apart, rel=1e-5)


def test_loss_is_the_cross_entropy_of_the_models_own_logits(family):
    """The alignment probe: our labels against the logits that the plain Hugging Face forward gives."""
    batch = family.collate(samples(), with_targets=True, images=pictures())
    with torch.no_grad():
        logits = family.model(**family.plain_inputs(batch)).logits
    labels = batch["labels"]
    if not family.model.config.is_encoder_decoder:
        logits, labels = logits[:, :-1], labels[:, 1:]
    logprobs = logits.float().log_softmax(-1)
    expected = -sum(
        float(logprobs[row, place, labels[row, place]])
        for row in range(labels.shape[0])
        for place in range(labels.shape[1])
        if labels[row, place] != IGNORED
    )
    assert nll(family, batch) == pytest.approx(expected, rel=1e-5)


def test_no_caption_sees_its_own_future(family):
    """Changing a later word must leave what is predicted before it as it was."""
    one, other = "a red circle above a blue square", "a red circle above a green square"
    batches = [family.collate(samples((text,)), with_targets=True, images=pictures(1)) for text in (one, other)]
    shorter = min(batch["labels"].shape[1] for batch in batches)
    first, second = (batch["labels"][:, :shorter] for batch in batches)
    changed = int((first != second).int().argmax())

    def before(batch):
        cut = {**batch, "labels": batch["labels"].clone()}
        cut["labels"][:, changed:] = IGNORED
        return nll(family, cut)

    assert before(batches[0]) == pytest.approx(before(batches[1]), rel=1e-6)
    assert nll(family, batches[0]) != pytest.approx(nll(family, batches[1]), rel=1e-6)


def test_image_changes_the_loss(family):
    first, second = (family.collate(samples(CAPTIONS[:1]), with_targets=True, images=[drawing(n)]) for n in (0, 1))
    assert nll(family, first) != pytest.approx(nll(family, second), rel=1e-7)


def test_batch_is_as_good_as_its_rows(family):
    """The row probe, for the loss and for generation."""
    images = pictures()
    together = nll(family, family.collate(samples(), with_targets=True, images=images))
    apart = sum(
        nll(family, family.collate([sample], with_targets=True, images=[image]))
        for sample, image in zip(samples(), images, strict=True)
    )
    assert together == pytest.approx(apart, rel=1e-5)
    for settings in (GenerateSettings(max_new_tokens=8), GenerateSettings(max_new_tokens=8, num_beams=3)):
        batch = family.generate(family.collate(samples(), with_targets=False, images=images), settings)
        for made, sample, image in zip(batch, samples(), images, strict=True):
            (alone,) = family.generate(family.collate([sample], with_targets=False, images=[image]), settings)
            assert made.text == alone.text
            assert made.logprob == pytest.approx(alone.logprob, abs=1e-3)


def test_captions_that_end_early_make_no_library_warn(family, monkeypatch):
    said = []
    for name in ("warning", "warning_once"):
        monkeypatch.setattr("logging.Logger." + name, lambda self, text, *given, **more: said.append(text))
    end = family.end_ids[0]
    forced = ForcedDecoding([[5, end], [5, 6, 7, 5, 6, end], [5, 6, 7, end]])
    batch = family.collate(samples(), with_targets=False, images=pictures())
    made = family.generate(batch, GenerateSettings(max_new_tokens=8), forced=forced)
    assert [len(one.text) > 0 for one in made] == [True] * 3
    assert said == []


@pytest.mark.parametrize(
    "settings",
    [
        GenerateSettings(max_new_tokens=6),
        GenerateSettings(max_new_tokens=6, num_beams=3),
        GenerateSettings(max_new_tokens=6, do_sample=True, temperature=0.7, top_k=20),
    ],
    ids=["greedy", "beams", "sampling"],
)
def test_logprob_is_what_teacher_forcing_says(family, settings, monkeypatch):
    """Independent of temperature, beams and length penalty."""
    monkeypatch.setattr(family.model.generation_config, "suppress_tokens", None)
    torch.manual_seed(0)
    sequences = []
    decode = type(family.tokenizer).decode
    monkeypatch.setattr(
        type(family.tokenizer), "decode", lambda self, ids, **how: sequences.append(ids) or decode(self, ids, **how)
    )
    made = family.generate(family.collate(samples(), with_targets=False, images=pictures()), settings)
    for generation, tokens, image in zip(made, sequences, pictures(), strict=True):
        batch = family.collate(samples(("a",)), with_targets=True, images=[image])
        length = int((batch["labels"] == IGNORED).sum())  # of the prompt
        target = torch.tensor([tokens])
        batch["labels"] = torch.cat([batch["labels"][:, :length], target], 1)
        if "input_ids" in batch and not family.model.config.is_encoder_decoder:
            batch["input_ids"] = torch.cat([batch["input_ids"][:, :length], target], 1)
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        assert generation.tokens == len(tokens)
        assert generation.logprob == pytest.approx(-nll(family, batch), abs=2e-3)


def test_cached_features_are_what_the_tower_says(family):
    images = pictures()
    live = family.collate(samples(), with_targets=True, images=images)
    with torch.no_grad():
        seen = family.split_features(family.encode_images(family.pixels(images)))
    cached = family.collate(samples(), with_targets=True, features=seen)
    assert "pixel_values" not in cached
    assert nll(family, cached) == pytest.approx(nll(family, live), rel=1e-6)
    settings = GenerateSettings(max_new_tokens=8)
    one = family.generate(family.collate(samples(), with_targets=False, images=images), settings)
    other = family.generate(family.collate(samples(), with_targets=False, features=seen), settings)
    assert [made.text for made in one] == [made.text for made in other]


def test_saved_and_opened_again_says_the_same(family, tmp_path):
    family.prompt, family.generation = "What is here?" if family.prompt else "", GenerateSettings(num_beams=2)
    family.save(tmp_path)
    opened = type(family).open(str(tmp_path)).eval()
    opened.read_policy(tmp_path)
    settings = GenerateSettings(max_new_tokens=8)
    one = family.generate(family.collate(samples(), with_targets=False, images=pictures()), settings)
    other = opened.generate(opened.collate(samples(), with_targets=False, images=pictures()), settings)
    assert [made.text for made in one] == [made.text for made in other]
    assert [made.logprob for made in one] == pytest.approx([made.logprob for made in other], rel=1e-6)
    assert opened.generation == family.generation
    assert opened.prompt == family.prompt
    assert vision_fingerprint(opened) == vision_fingerprint(family)


def test_fingerprint_changes_with_weights_and_with_image_policy(family, tmp_path):
    before = vision_fingerprint(family)
    parameter = next(p for name, p in family.model.named_parameters() if family.part_of(name) == "vision")
    with torch.no_grad():
        parameter.view(-1)[0] += 1e-3
        changed = vision_fingerprint(family)
        parameter.view(-1)[0] -= 1e-3
    assert changed != before
    mean = family.image_processor.image_mean
    family.image_processor.image_mean = [0.1, 0.2, 0.3]
    assert vision_fingerprint(family) != before
    family.image_processor.image_mean = mean


def test_two_pictures_are_learnt_until_the_exact_captions_come(family):
    """The loss falls, and what was learnt is what is generated: labels, end token and generation belong together."""
    student = type(family).tiny(seed=1)
    open_parts(student, {})
    student.train()
    pair, images = samples(CAPTIONS[:2]), [drawing(1), drawing(2)]
    batch = student.collate(pair, with_targets=True, images=images)
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=5e-3)
    first = float("nan")
    for step in range(150):
        loss = student(batch)
        mean = (loss.nll + loss.penalty) / loss.tokens
        first = first if step else float(mean.detach())
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
        if float(mean.detach()) < 0.01:
            break
    assert float(mean.detach()) < first / 3
    student.eval()
    made = student.generate(
        student.collate(pair, with_targets=False, images=images), GenerateSettings(max_new_tokens=30)
    )
    assert [one.text for one in made] == list(CAPTIONS[:2])
    assert all(one.finished for one in made)
    assert all(math.isfinite(one.logprob) for one in made)


def test_frozen_tower_keeps_no_activations_and_moves_nothing(family):
    student = type(family).tiny(seed=2)
    open_parts(student, {"vision": "frozen"})
    student.train()
    before = {name: tensor.clone() for name, tensor in student.vision_tensors()}
    batch = student.collate(samples(), with_targets=True, images=pictures())
    assert not student.with_image_features(batch)["features"].requires_grad
    student(batch).nll.backward()
    trained = [p for p in student.parameters() if p.requires_grad]
    torch.optim.SGD(trained, lr=0.1).step()
    assert all(torch.equal(before[name], tensor) for name, tensor in student.vision_tensors())
    without = [name for name, p in student.named_parameters() if p.requires_grad and p.grad is None]
    if family.tasks == {"caption"}:  # a matcher has more to train than captions reach
        assert not without


def test_adapters_in_the_text_part_learn_and_touch_nothing_else(family):
    student = type(family).tiny(seed=3)
    if not adapters.adaptable(student, "text"):
        pytest.skip("its text part has no matrices of its own")
    if family.tasks != {"caption"}:
        pytest.skip("its encoder and decoder share their matrices")
    open_parts(student, dict.fromkeys(student.parts, "frozen") | {"text": "lora"}, LoraSettings(r=2))
    student.train()
    opened = {name: p for name, p in student.model.named_parameters() if p.requires_grad}
    assert {student.part_of(name) for name in opened} == {"text"}
    assert all(adapters.is_adapter(name) for name in opened)
    student(student.collate(samples(), with_targets=True, images=pictures())).nll.backward()
    # at first the second matrix of each is zero, so only it can learn
    idle = [name for name, p in opened.items() if "lora_B" in name and (p.grad is None or not p.grad.any())]
    assert not idle
