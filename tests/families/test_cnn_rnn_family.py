"""Building a CNN + RNN captioner as a recipe says: towers, cells, and convolutions that were trained elsewhere."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from transformers import MobileNetV2Config, MobileNetV2Model, ResNetConfig, ResNetModel, ViTImageProcessorPil

from cutline.core.errors import CheckpointError, RecipeError
from cutline.core.records import Sample
from cutline.families.cnn_rnn import CnnRnn
from cutline.families.models.vgg import VggConfig, VggModel
from cutline.families.settings import GenerateSettings
from cutline.train.trainable import open_parts
from tests.conftest import drawing

CAPTIONS = ("a red circle above a blue square", "a green triangle")
SIZES = {"embedding": 12, "hidden": 10, "memory": 14, "attention_size": 6, "min_count": 1, "dropout": 0.0}
TOWERS = {
    "mobilenet": lambda: MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.35, min_depth=8)),
    "resnet": lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])),
}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("tower", TOWERS)
def test_pretrained_tower_is_taken_over_and_the_rest_learns(tower, cell, tmp_path):
    torch.manual_seed(1)
    original = TOWERS[tower]().eval()
    original.save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    family = CnnRnn.new({"encoder": str(tmp_path), "cell": cell} | SIZES, CAPTIONS).eval()
    samples = [Sample(id=str(n), image="", captions=(text,)) for n, text in enumerate(CAPTIONS)]
    batch = family.collate(samples, with_targets=True, images=[drawing(n) for n in range(2)])
    with torch.no_grad():
        expected = original(batch["pixel_values"]).last_hidden_state.flatten(2).transpose(1, 2)
    assert torch.allclose(family.encode_images(batch)["features"], expected, atol=1e-5)
    assert family.model.config.cell == cell
    open_parts(family, {"vision": "frozen"})
    family.train()
    family(batch).nll.backward()
    assert all(p.grad is not None for p in family.parameters() if p.requires_grad)
    made = family.eval().generate(batch, GenerateSettings(max_new_tokens=5))
    assert len(made) == 2


def test_vgg_takes_convolutions_that_were_trained_elsewhere(tmp_path):
    torch.manual_seed(0)
    trained = VggModel(VggConfig(depth=11, batch_norm=True))
    # as published: with the classifier that captioning has no use for
    weights = trained.state_dict() | {"classifier.0.weight": torch.zeros(4, 4)}
    save_file(weights, tmp_path / "model.safetensors")
    torch.save(weights, tmp_path / "vgg11_bn.pth")
    for given in (tmp_path, tmp_path / "model.safetensors", tmp_path / "vgg11_bn.pth"):
        family = CnnRnn.new({"vgg": 11, "vgg_weights": str(given)} | SIZES, CAPTIONS)
        taken = family.model.encoder.state_dict()
        assert all(torch.equal(taken[name], tensor) for name, tensor in trained.state_dict().items())
        # 14 × 14 cells at 224 px, as in Show, Attend and Tell
        assert family.model.encode_images(torch.zeros(1, 3, 64, 64)).shape == (1, 16, 512)
    with pytest.raises(CheckpointError, match="holds no VGG13"):
        CnnRnn.new({"vgg": 13, "vgg_weights": str(tmp_path)} | SIZES, CAPTIONS)
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04")
    for wrong in ("torn.pth", "absent.pth"):
        with pytest.raises(CheckpointError, match="could not be opened"):
            CnnRnn.new({"vgg": 11, "vgg_weights": str(tmp_path / wrong)} | SIZES, CAPTIONS)
    with pytest.raises(RecipeError, match="vgg_weights but no depth"):
        CnnRnn.new({"encoder": "a", "vgg_weights": "b"}, CAPTIONS)


def test_rehearsal_is_of_the_kind_that_the_recipe_asks_for():
    family = CnnRnn.tiny(CAPTIONS, new={"vgg": 19, "cell": "gru", "attention": "dot", "hidden": 512, "min_count": 9})
    assert family.model.encoder.config.depth == 19
    assert (family.model.config.cell, family.model.config.attention) == ("gru", "dot")
    assert sum(p.numel() for p in family.parameters()) < 200_000
    assert "triangle" in family.tokenizer.get_vocab()
    with pytest.raises(RecipeError, match="either encoder"):
        CnnRnn.tiny(CAPTIONS, new={"cell": "gru"})
