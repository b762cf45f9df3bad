"""Each probe of training fails on the mistake that it looks for: in what is trained, accumulated or saved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cutline.families import open as opening
from cutline.families.open import find
from cutline.families.settings import LoraSettings
from cutline.families.weights import adapters
from cutline.train.settings import TrainSettings
from cutline.train.trainer import LearnerTrainer
from tests.check.making import CAPTIONS, broken, failures, real_class, run, subject


def test_lora_that_hits_nothing(tmp_path):
    train = TrainSettings(parts={"vision": "frozen", "text": "lora"}, lora=LoraSettings(targets=["q_prj"]))
    reports = run(subject(tmp_path, "qwen2_5_vl", train=train), debug=False)
    assert failures(reports) == {"trained_tensors_move"}
    assert "hits nothing in text" in reports["trained_tensors_move"].message
    assert "q_proj" in reports["trained_tensors_move"].remedy


def test_lora_that_is_not_there(tmp_path, monkeypatch):
    """Adapters are requested but never added, while other parts are trained."""
    monkeypatch.setattr(adapters, "add", lambda family, names, lora: None)
    train = TrainSettings(parts={"vision": "frozen", "text": "lora"})
    reports = run(subject(tmp_path, "qwen2_5_vl", train=train))
    assert failures(reports) == {"trained_tensors_move"}
    assert 'text = "lora" makes none of its' in reports["trained_tensors_move"].message


def test_sound_lora(tmp_path):
    """LoRA's second matrices start at zero and must move too; a saved checkpoint includes the adapters."""
    train = TrainSettings(parts={"vision": "frozen", "text": "lora"}, gradient_checkpointing=True)
    probed = subject(tmp_path, "qwen2_5_vl", train=train)
    probed.family.save(tmp_path / "base")
    probed.family = opening.open_checkpoint(tmp_path / "base")
    reports = run(probed, "trained_tensors_move", "accumulation", "saved_and_opened")
    assert [report.status for report in reports.values()] == ["passed"] * 3, reports


@pytest.mark.parametrize("sound", [True, False])
def test_quantised_weights(tmp_path, sound):
    pytest.importorskip("bitsandbytes")
    base = find("qwen2_5_vl").tiny(CAPTIONS)
    with torch.no_grad():  # new weights are so small that the layers hardly matter
        for name, parameter in base.model.named_parameters():
            if ".layers." in name and parameter.dim() == 2:
                parameter.mul_(5)
    base.save(tmp_path / "base")

    def quantised():
        family = opening.open_checkpoint(tmp_path / "base", quantize="nf4")
        if not sound:
            for name, parameter in family.named_parameters():
                if hasattr(parameter, "quant_state") and ("down_proj" in name or "o_proj" in name):
                    parameter.data.random_(0, 256)
        return family

    probed = subject(tmp_path, "qwen2_5_vl", open_unquantized=lambda: opening.open_checkpoint(tmp_path / "base"))
    probed.family = quantised()
    reports = run(probed, "quantised")
    assert reports["quantised"].status == ("passed" if sound else "failed"), reports


def test_an_adapter_that_nothing_reads(tmp_path):
    real: Any = find("vision_encoder_decoder")

    def tiny(cls, captions=(), seed=0):
        family = real.tiny.__func__(cls, captions, seed)
        family.model.decoder.adapter = nn.Linear(4, 4)
        return family

    reports = run(subject(tmp_path, broken("vision_encoder_decoder", tiny=classmethod(tiny))))
    assert failures(reports) == {"trained_tensors_move"}
    assert "decoder.adapter" in reports["trained_tensors_move"].message


def test_a_frozen_part_that_moves(tmp_path):
    """As the statistics of a tower in training mode do."""
    real = real_class("cnn_rnn")

    def encode_images(self, batch):
        if self.training:
            next(buffer for name, buffer in self.model.named_buffers() if name.endswith("running_var")).mul_(0.9)
        return real.encode_images(self, batch)

    kind = broken("cnn_rnn", encode_images=encode_images)
    probed = subject(tmp_path, kind, train=TrainSettings(parts={"vision": "frozen"}))
    reports = run(probed)
    assert failures(reports) == {"trained_tensors_move"}
    assert "1 frozen tensors changed" in reports["trained_tensors_move"].message


def test_gradients_that_end_at_a_frozen_part(tmp_path):
    """Checkpointing over frozen inputs, or a detach too many."""
    real = real_class("qwen2_5_vl")
    kind = broken("qwen2_5_vl", hidden_states=lambda self, batch: real.hidden_states(self, batch).detach())
    reports = run(subject(tmp_path, kind))
    assert failures(reports) == {"trained_tensors_move"}


def test_accumulation_by_mean_of_means(tmp_path, monkeypatch):
    real = LearnerTrainer.compute_loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return real(self, model, inputs, return_outputs) / self.args.gradient_accumulation_steps

    monkeypatch.setattr(LearnerTrainer, "compute_loss", compute_loss)
    assert failures(run(subject(tmp_path, "vision_encoder_decoder"))) == {"accumulation"}


def test_images_that_look_all_the_same(tmp_path):
    """The loss falls, but generation can't tell the two images apart."""
    real = real_class("vision_encoder_decoder")

    def encode_images(self, batch):
        one = torch.randn(
            real.encode_images(self, batch)["features"].shape[1:], generator=torch.Generator().manual_seed(0)
        )
        return {"features": one.expand(len(batch["pixel_values"]), -1, -1)}

    kind = broken("vision_encoder_decoder", encode_images=encode_images)
    reports = run(subject(tmp_path, kind, train=TrainSettings(parts={"vision": "frozen"})))
    assert failures(reports) == {"overfit"}


def test_overfit_uses_captions_of_median_length(tmp_path):
    """A long caption of a messy dataset may need more steps than the probe trains; that is no mistake of the model."""
    long = " ".join(f"< p > word{number} & amp ;" for number in range(12))
    captions = [long, "a square", *CAPTIONS, CAPTIONS[0], f"{long} twice", "a dot"]
    probed = subject(tmp_path, "cnn_rnn", captions=captions)
    assert long in [sample.captions[0] for sample in probed.samples]
    samples, images = probed.typical
    assert {sample.captions[0] for sample in samples} == {CAPTIONS[0], CAPTIONS[3]}
    assert images[0].tobytes() != images[1].tobytes()
    reports = run(probed, "overfit")
    assert reports["overfit"].status == "passed", reports


def test_a_checkpoint_that_leaves_weights_out(tmp_path):
    real = real_class("qwen2_5_vl")

    def save(self, folder):
        trained = self.model.state_dict()
        fresh = find("qwen2_5_vl").tiny(CAPTIONS)
        fresh.model.load_state_dict({n: t for n, t in trained.items() if "layers.1" not in n}, strict=False)
        fresh.prompt, fresh.generation = self.prompt, self.generation
        real.save(fresh, folder)

    reports = run(subject(tmp_path, broken("qwen2_5_vl", save=save)))
    assert failures(reports) == {"saved_and_opened"}


def test_a_checkpoint_without_its_prompt(tmp_path):
    kind = broken("qwen2_5_vl", save_policy=lambda self, folder: None)
    probed = subject(tmp_path, kind)
    probed.family.prompt = "What is this?"
    reports = run(probed, "saved_and_opened")
    assert failures(reports) == {"saved_and_opened"}
    assert "prompt" in reports["saved_and_opened"].message
