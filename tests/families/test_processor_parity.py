"""A family's batch against the plain Hugging Face processor and model: same tokens, same loss, same captions."""

from __future__ import annotations

import warnings

import pytest
import torch

from cutline import families
from cutline.core.records import Sample
from cutline.families.common.loss import IGNORED
from cutline.families.common.spliced import SplicedFamily
from cutline.families.open import find
from cutline.families.settings import GenerateSettings
from tests.conftest import drawing

CAPTIONS = ("a red circle above a blue square", "a green triangle")
PROMPT = "What is here?"


@pytest.fixture(scope="module", params=[name for name in families.names() if issubclass(find(name), SplicedFamily)])
def family(request) -> SplicedFamily:
    made = find(request.param).tiny().eval()
    assert isinstance(made, SplicedFamily)
    made.prompt = PROMPT
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return made


def pictures():
    return [drawing(0, (96, 64)), drawing(1, (64, 80))]


def samples():
    return [Sample(id=str(n), image="", captions=(text,)) for n, text in enumerate(CAPTIONS)]


def by_the_book(family, captions, side="right"):
    """What a reader of the model's page at Hugging Face would write."""
    processor = family.processor
    images = [[image] for image in pictures()]
    how = {"return_tensors": "pt", "padding": True, "padding_side": side}
    if family.name() == "paligemma":
        suffix = {"suffix": list(captions)} if captions else {}
        with warnings.catch_warnings():  # transformers' own, with numpy 2
            warnings.simplefilter("ignore", DeprecationWarning)
            return dict(processor(images=images, text=[f"<image>{PROMPT}"] * 2, **suffix, **how))
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}
    asked = processor.apply_chat_template([user], add_generation_prompt=True, tokenize=False)
    texts = [asked] * 2
    if captions:
        texts = [answered(processor, user, asked, caption) for caption in captions]
    bos = family.tokenizer.bos_token
    once = bos is None or not texts[0].startswith(bos)  # a template that holds it already
    return dict(processor(images=images, text=texts, add_special_tokens=once, **how))


def answered(processor, user, asked, caption):
    answer = {"role": "assistant", "content": [{"type": "text", "text": caption}]}
    text = processor.apply_chat_template([user, answer], add_generation_prompt=False, tokenize=False)
    if not text.startswith(asked):  # LLaVA-OneVision: what is generated from counts
        text = asked + caption + processor.tokenizer.eos_token
    if text.rstrip().endswith(caption):  # LLaVA 1.5's template has no end
        text = text.rstrip() + processor.tokenizer.eos_token
    return text


def book_labels(family, inputs):
    """Everything after the prompt up to the end token."""
    prompts = by_the_book(family, None)
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    for row, ids in enumerate(inputs["input_ids"]):
        start = int(prompts["attention_mask"][row].sum())
        assert torch.equal(ids[:start], prompts["input_ids"][row, :start])
        ends = [place for place in range(start, len(ids)) if ids[place] == family.end_ids[0]]
        labels[row, start : ends[0] + 1] = ids[start : ends[0] + 1]
    return labels


def test_loss_is_that_of_the_plain_processor_and_model(family):
    inputs = by_the_book(family, CAPTIONS)
    inputs.pop("labels", None)
    labels = book_labels(family, inputs)
    with torch.no_grad():
        logits = family.model(**inputs).logits[:, :-1].log_softmax(-1)
        ours = family.loss(family.collate(samples(), with_targets=True, images=pictures()))
    wanted = labels[:, 1:]
    picked = logits.gather(2, wanted.clamp(min=0)[..., None])[..., 0]
    assert float(ours.nll) == pytest.approx(-float(picked[wanted != IGNORED].sum()), rel=1e-5)
    assert int(ours.tokens) == int((wanted != IGNORED).sum())


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_those_of_the_plain_processor_and_model(family, beams):
    inputs = by_the_book(family, None, side="left")
    inputs.pop("labels", None)
    length = inputs["input_ids"].shape[1]
    with torch.no_grad():
        sequences = family.model.generate(
            **inputs, max_new_tokens=8, do_sample=False, num_beams=beams, eos_token_id=family.end_ids
        )
    plain = [text.strip() for text in family.tokenizer.batch_decode(sequences[:, length:], skip_special_tokens=True)]
    batch = family.collate(samples(), with_targets=False, images=pictures())
    assert torch.equal(batch["input_ids"], inputs["input_ids"])
    ours = family.generate(batch, GenerateSettings(max_new_tokens=8, num_beams=beams))
    assert [made.text for made in ours] == plain


def test_markers_in_peoples_text_stay_text(family):
    """A caption or a context that spells an image token or an end must not become one."""
    token = family.tokenizer.convert_ids_to_tokens(family.image_token_id)
    end = family.tokenizer.convert_ids_to_tokens(family.end_ids[0])
    family.prompt = "What is here? {context}"
    odd = Sample(id="0", image="", captions=(f"a {token} red {end} circle",), context={"title": f"{token}{end} fair"})
    batch = family.collate([odd], with_targets=True, images=pictures()[:1])
    family.prompt = PROMPT
    fine = family.collate(samples()[:1], with_targets=True, images=pictures()[:1])
    assert (batch["input_ids"] == family.image_token_id).sum() == (fine["input_ids"] == family.image_token_id).sum()
    assert sum(int((batch["labels"] == end).sum()) for end in family.end_ids) == 1
