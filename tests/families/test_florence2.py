"""Florence-2 against its real processor and a plain generate."""

import pytest
import torch

from cutline.core.errors import CheckpointError
from cutline.core.records import Sample
from cutline.families.florence2 import Florence2
from cutline.families.settings import GenerateSettings, ImagePolicy
from tests.conftest import drawing


@pytest.fixture(scope="module")
def family():
    torch.manual_seed(0)
    made = Florence2.tiny().eval()
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if made.part_of(name) != "vision":
                parameter.add_(torch.randn_like(parameter) * 0.03)
    return made


SAMPLES = [Sample(id=str(n), image="") for n in range(2)]


def pictures():
    return [drawing(1), drawing(2)]


@pytest.mark.parametrize("task", ["<CAPTION>", "<DETAILED_CAPTION>"])
def test_prompts_are_those_of_the_real_processor(family, task):
    family.prompt = task
    batch = family.collate(SAMPLES, with_targets=False, images=pictures())
    family.prompt = family.default_prompt
    theirs = family.processor(images=pictures(), text=[task] * 2, return_tensors="pt")
    for name in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(batch[name], theirs[name]), name


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_those_of_transformers(family, beams):
    settings = GenerateSettings(max_new_tokens=8, num_beams=beams)
    made = family.generate(family.collate(SAMPLES, with_targets=False, images=pictures()), settings)
    inputs = family.processor(images=pictures(), text=["<CAPTION>"] * 2, return_tensors="pt")
    # <s> is forced as the published configurations do; it is a token more
    start = family.tokenizer.bos_token_id
    theirs = family.model.generate(**inputs, max_new_tokens=9, num_beams=beams, do_sample=False,
                                   forced_bos_token_id=start)  # fmt: skip
    assert theirs[:, :2].tolist() == [family.decoder_prefix] * 2
    said = family.tokenizer.batch_decode(theirs, skip_special_tokens=True)
    assert [one.text for one in made] == [text.strip() for text in said]


def test_a_context_may_stand_beside_the_task(family):
    family.prompt = "{context} <CAPTION>"
    told = [Sample(id="0", image="", context={"place": "a red <image> square"})]
    batch = family.collate(told, with_targets=False, images=pictures()[:1])
    family.prompt = family.default_prompt
    said = family.tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True)
    assert "place: a red" in said
    assert said.endswith("What does the image describe?")
    assert int((batch["input_ids"] == family.image_token_id).sum()) == 5


def test_images_of_another_size_take_as_many_tokens_as_they_have(family):
    other = Florence2.tiny().eval()
    other.set_policy(ImagePolicy(size=96))
    batch = other.collate(SAMPLES, with_targets=False, images=pictures())
    assert (batch["input_ids"] == other.image_token_id).sum(1).tolist() == [10, 10]
    assert other.processor.image_processor.image_seq_length == 10
    other.generate(batch, GenerateSettings(max_new_tokens=2))
    with pytest.raises(CheckpointError, match="cells of 32 px"):
        other.set_policy(ImagePolicy(size=100))
