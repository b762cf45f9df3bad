"""CLIP and its kin against plain transformers calls."""

import pytest
import torch

from cutline.core.errors import CheckpointError
from cutline.families.align import Align
from cutline.families.clip import Clip
from cutline.families.settings import ImagePolicy
from cutline.families.siglip import Siglip
from cutline.families.siglip2 import Siglip2
from tests.conftest import drawing

TEXTS = ("a red circle above a blue square", "a green triangle")


def pictures():
    return [drawing(1), drawing(2, (96, 64))]


@pytest.mark.parametrize("kind", [Clip, Siglip, Siglip2, Align])
def test_cosines_are_those_of_the_whole_model(kind):
    """With the texts padded as the real processor pads them."""
    family = kind.tiny().eval()
    inputs = family.processor_class(family.image_processor, family.tokenizer)(
        images=pictures(),
        text=list(TEXTS),
        padding="max_length",
        max_length=family.text_tokens,
        return_tensors="pt",
        **({"max_num_patches": 36, "patch_size": 8} if kind is Siglip2 else {}),
    )
    if kind in (Siglip, Siglip2):
        inputs.pop("attention_mask", None)  # these towers were trained without one
    with torch.no_grad():
        out = family.model(**inputs)
        ours = family.similarity(
            family.embed_images(family.pixels(pictures())), family.embed_texts(family.encode_texts(TEXTS))
        )
    torch.testing.assert_close(ours, out.image_embeds @ out.text_embeds.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [Siglip, Siglip2])
def test_siglip_pads_to_its_full_length_and_lowers_case(kind):
    family = kind.tiny()
    batch = family.encode_texts(["A Green TRIANGLE"])
    assert set(batch) == {"input_ids"}
    assert batch["input_ids"].shape == (1, family.text_tokens)
    assert torch.equal(batch["input_ids"], family.encode_texts(["a green triangle"])["input_ids"])


def test_naflex_keeps_the_shape_of_an_image_within_a_bound_of_pixels():
    family = Siglip2.tiny()
    wide = family.pixels([drawing(0, (192, 64))])
    rows, columns = wide["spatial_shapes"][0].tolist()
    assert columns > 2 * rows
    assert rows * columns <= 36
    family.set_policy(ImagePolicy(max_pixels=16 * 8 * 8))
    assert int(family.pixels([drawing(0, (192, 64))])["spatial_shapes"].prod(1)) <= 16
    with pytest.raises(CheckpointError, match="max_pixels"):
        family.set_policy(ImagePolicy(size=64))
