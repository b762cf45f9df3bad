"""PaliGemma: what is read in which direction, the prompt's form, and PaliGemma 2's capped logits."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, PaliGemmaConfig, PaliGemmaForConditionalGeneration

from cutline.core.errors import CheckpointError
from cutline.core.records import Sample
from cutline.families.common.loss import IGNORED
from cutline.families.paligemma import PaliGemma
from cutline.families.settings import ImagePolicy
from tests.conftest import drawing


@pytest.fixture(scope="module")
def family() -> PaliGemma:
    return PaliGemma.tiny().eval()


def encoded(family, captions=("a red circle", "a green triangle above a blue square")):
    samples = [Sample(id=str(n), image="", captions=(text,)) for n, text in enumerate(captions)]
    return family.collate(samples, with_targets=True, images=[drawing(n) for n in range(len(samples))])


def test_prompt_is_image_bos_prompt_newline(family):
    batch = encoded(family)
    (ids,) = batch["input_ids"][:1].tolist()
    length = int(batch["prompt_lengths"][0])
    assert ids[:16] == [family.image_token_id] * 16
    assert ids[16] == family.tokenizer.bos_token_id
    assert ids.count(family.tokenizer.bos_token_id) == 1
    assert family.tokenizer.decode(ids[17:length]) == "caption en\n"


def test_prompt_is_read_in_both_directions_and_the_caption_forward(family):
    """A later word of the prompt changes the first hidden state; no word of a caption changes one before it."""
    batch = encoded(family, ("a red circle above a blue square",))
    length = int(batch["prompt_lengths"][0])

    def states(place: int) -> torch.Tensor:
        changed = {**batch, "input_ids": batch["input_ids"].clone()}
        changed["input_ids"][0, place] = (changed["input_ids"][0, place] + 1) % 256
        with torch.no_grad():
            return (family.hidden_states(changed) - family.hidden_states(batch))[0].abs().sum(-1) > 0

    in_prompt, in_caption = states(length - 1), states(length + 2)
    assert in_prompt[:length].all()
    assert not in_caption[: length + 2].any()
    assert in_caption[length + 2 :].all()


def test_padding_is_no_part_of_the_prefix(family):
    batch = encoded(family)
    types = family.token_types(batch)["token_type_ids"]
    for row, length in enumerate(batch["prompt_lengths"].tolist()):
        assert not types[row, :length].any()
        assert types[row, length:].all()


def test_token_types_do_not_depend_on_which_labels_are_kept(family):
    """Labels may be masked by others; what was caption stays caption."""
    batch = encoded(family)
    before = family.token_types(batch)["token_type_ids"]
    batch["labels"][:] = IGNORED
    assert torch.equal(family.token_types(batch)["token_type_ids"], before)


def test_paligemma_2_caps_its_logits():
    tiny = PaliGemma.tiny()
    text = tiny.model.config.text_config
    sizes = {name: getattr(text, name) for name in ("vocab_size", "hidden_size", "intermediate_size", "head_dim",
             "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "bos_token_id", "eos_token_id",
             "pad_token_id")}  # fmt: skip
    config = PaliGemmaConfig(
        vision_config=tiny.model.config.vision_config,
        text_config=Gemma2Config(**sizes, final_logit_softcapping=0.5, sliding_window=16, query_pre_attn_scalar=16),
        image_token_index=tiny.model.config.image_token_id,
        projection_dim=64,
    )
    torch.manual_seed(0)
    second = PaliGemma(PaliGemmaForConditionalGeneration(config), tiny.processor).eval()
    batch = encoded(second)
    with torch.no_grad():
        logits = second.model(**second.plain_inputs(batch)).logits[:, :-1].log_softmax(-1)
        loss = float(second.loss(batch).nll)
    labels = batch["labels"][:, 1:]
    picked = logits.gather(2, labels.clamp(min=0)[..., None])[..., 0]
    assert loss == pytest.approx(-float(picked[labels != IGNORED].sum()), rel=1e-5)


def test_another_input_size_is_refused(family):
    with pytest.raises(CheckpointError, match="one input size"):
        family.set_policy(ImagePolicy(size=448))
