"""Each probe is proved by a family that is broken in the way that it looks for: it fires, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cutline import families
from cutline.errors import RecipeError
from cutline.families import open as opening
from cutline.families.base import Loss
from cutline.families.common import adapters
from cutline.families.common.loss import IGNORED, token_nll
from cutline.families.open import find
from cutline.families.settings import LoraSettings
from cutline.train.loop import CaptionTrainer
from cutline.train.settings import TrainSettings
from tests.check.making import BROKEN, CAPTIONS, broken, failures, real_class, subject, verdicts


@pytest.fixture(autouse=True)
def _opened_again_as_broken_as_before(monkeypatch):
    """Whoever looks for a family finds the one that a test broke."""
    monkeypatch.setattr(opening, "find", lambda name: BROKEN.get(name) or find(name))
    BROKEN.clear()


CAPTIONERS = [name for name in families.names() if "caption" in find(name).can]


@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_sound_family_passes_every_probe(name, tmp_path):
    found = verdicts(subject(tmp_path, name))
    assert not failures(found), found
    # nothing is passed over for want of a way to look: a new family must be probed like the others
    assert not [verdict for verdict in found.values() if verdict.status == "not judged"]
    for probe in ("no_future", "label_alignment", "end_token", "training_is_generation", "overfit"):
        assert found[probe].status == "passed"


# ---- labels


def test_labels_shifted_twice(tmp_path):
    """VisionEncoderDecoderModel of transformers 4.52, Florence-2, GIT."""

    def forward(self, batch, label_smoothing=0.0):
        labels = batch["labels"]
        inputs = torch.cat([torch.full_like(labels[:, :1], self.start_id), labels[:, :-1]], 1).clamp(min=0)
        features = self.looked_at(batch)["features"]
        hidden, penalty = self.teach(features, batch["rows"], inputs, labels != IGNORED)
        nll, tokens = token_nll(hidden[:, :-1], self.head, labels[:, 1:], label_smoothing)
        return Loss(nll, penalty, tokens)

    found = verdicts(subject(tmp_path, broken("vision_encoder_decoder", forward=forward)))
    assert failures(found) == {"label_alignment"}
    assert "shifted 2 times" in found["label_alignment"].what
    assert found["overfit"].status == "not judged"


def test_labels_not_shifted_at_all(tmp_path):
    def forward(self, batch, label_smoothing=0.0):
        nll, tokens = token_nll(self.read(batch), self.head, batch["labels"], label_smoothing)
        return Loss(nll, nll.new_zeros(()), tokens)

    found = verdicts(subject(tmp_path, broken("qwen2_5_vl", forward=forward)))
    assert failures(found) == {"label_alignment"}
    assert "not shifted" in found["label_alignment"].what


def test_paligemma_without_token_types(tmp_path):
    """The mask is then bidirectional, and every caption token sees those that it has to predict."""

    def forget(self, batch):
        return {} if "labels" in batch else real_class("paligemma").token_types(self, batch)

    found = verdicts(subject(tmp_path, broken("paligemma", token_types=forget)))
    assert failures(found) == {"no_future"}
    assert "token_type_ids" in found["no_future"].remedy


def test_paligemma_with_all_token_types_one(tmp_path):
    """The prompt then loses the sight of itself that PaliGemma was pretrained with."""
    kind = broken("paligemma", token_types=lambda self, batch: {"token_type_ids": torch.ones_like(batch["input_ids"])})
    assert failures(verdicts(subject(tmp_path, kind))) == {"prompt_sees_itself"}


def relabelled(name: str, change: Any):
    """A family whose encode changes the labels that it made."""
    real = type(find(name).tiny())

    def encode(self, samples, *, with_targets, **how):
        batch = real.encode(self, samples, with_targets=with_targets, **how)
        if with_targets:
            change(self, batch)
        return batch

    return broken(name, encode=encode)


@pytest.mark.parametrize("name", ["vision_encoder_decoder", "qwen2_5_vl"])
def test_no_end_token(tmp_path, name):
    def change(self, batch):
        for row in batch["labels"]:
            row[(row != IGNORED).nonzero()[-1]] = IGNORED

    assert failures(verdicts(subject(tmp_path, relabelled(name, change)))) == {"end_token"}


def test_end_masked_as_padding(tmp_path):
    """pad == eos, and labels masked where they are the padding token: the end is never learnt."""

    def change(self, batch):
        self.tokenizer.pad_token = self.tokenizer.eos_token
        batch["labels"][batch["labels"] == self.tokenizer.pad_token_id] = IGNORED

    found = verdicts(subject(tmp_path, relabelled("qwen2_5_vl", change)))
    assert failures(found) == {"end_token"}
    assert "never by its id" in found["end_token"].remedy


def test_an_end_that_generation_does_not_know(tmp_path):
    """BLIP-2-OPT's newline: what is trained as the end must stop generation."""

    def end(self):
        return [self.tokenizer.pad_token_id]

    probed = subject(tmp_path, "vision_encoder_decoder")
    real = type(probed.family)
    probed.family.__class__ = type(real.__name__, (real,), {"end_ids": property(end), "__module__": real.__module__})
    probed.family.generate = lambda batch, settings: real.generate(  # type: ignore[method-assign]
        find("vision_encoder_decoder").tiny().requires_grad_(False), batch, settings
    )
    assert failures(verdicts(probed, "end_token")) == {"end_token"}


def test_two_start_tokens(tmp_path):
    def change(self, batch):
        labels = batch["labels"]
        start = torch.full_like(labels[:, :1], self.start_id)
        batch["labels"] = torch.cat([start, labels], 1)

    found = verdicts(subject(tmp_path, relabelled("cnn_rnn", change)))
    assert failures(found) == {"one_bos"}
    assert "2 × '<bos>' in training" in found["one_bos"].what


def test_prompt_among_the_labels(tmp_path):
    def change(self, batch):
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)

    assert failures(verdicts(subject(tmp_path, relabelled("qwen2_5_vl", change)))) == {"prompt_not_learnt"}


def test_prompt_decoded_as_caption(tmp_path):
    real = real_class("qwen2_5_vl")

    def generate(self, batch, settings):
        prompt = f"{self.prompt} "
        return [made._replace(text=prompt + made.text) for made in real.generate(self, batch, settings)]

    assert failures(verdicts(subject(tmp_path, broken("qwen2_5_vl", generate=generate)))) == {"prompt_not_learnt"}


def test_image_tokens_cut_by_a_length_limit(tmp_path):
    limit = 600
    real = real_class("qwen2_5_vl")

    def encode(self, samples, **how):
        batch = real.encode(self, samples, **how)
        cut = {name: batch[name][:, -limit:] for name in ("input_ids", "attention_mask", "labels") if name in batch}
        return batch | cut

    assert failures(verdicts(subject(tmp_path, broken("qwen2_5_vl", encode=encode)))) == {"image_tokens"}


def test_image_beyond_its_bound(tmp_path):
    """max_pixels that never reaches the processor (Qwen3-VL#891)."""
    probed = subject(tmp_path, "qwen2_5_vl")
    probed.family.policy = probed.family.policy.model_copy(update={"max_pixels": 32 * 32})
    found = verdicts(probed, "image_tokens")
    assert failures(found) == {"image_tokens"}
    assert "allows 4" in found["image_tokens"].what


# ---- batches


def test_rows_that_mix(tmp_path):
    real = real_class("vision_encoder_decoder")

    def teach(self, features, *rest):
        hidden, penalty = real.teach(self, features, *rest)
        return hidden + 0.1 * (hidden.mean(0, keepdim=True) - hidden), penalty

    assert failures(verdicts(subject(tmp_path, broken("vision_encoder_decoder", teach=teach)))) == {"rows_apart"}


def test_a_loss_that_is_a_mean_of_rows(tmp_path):
    """A batch of n has then not n times the loss of one."""
    real = real_class("qwen2_5_vl")

    def forward(self, batch, label_smoothing=0.0):
        loss = real.forward(self, batch, label_smoothing)
        return loss._replace(nll=loss.nll / len(batch["rows"]))

    assert failures(verdicts(subject(tmp_path, broken("qwen2_5_vl", forward=forward)))) == {"batch_loss"}


def test_padding_that_is_seen(tmp_path):
    """Rows that are padded in front in training, without a mask."""
    real = real_class("qwen2_5_vl")

    def encode(self, samples, *, with_targets, **how):
        batch = real.encode(self, samples, with_targets=with_targets, **how)
        if with_targets:
            for row, mask in enumerate(batch["attention_mask"]):
                for name in ("input_ids", "labels"):
                    batch[name][row] = batch[name][row].roll(int((mask == 0).sum()))
            batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
        return batch

    assert failures(verdicts(subject(tmp_path, broken("qwen2_5_vl", encode=encode)))) == {"batch_loss"}


def test_prompts_padded_on_the_right(tmp_path):
    real = real_class("qwen2_5_vl")

    def encode(self, samples, *, with_targets, **how):
        batch = real.encode(self, samples, with_targets=with_targets, **how)
        if not with_targets:
            for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                padding = int((mask == 0).sum())
                row.copy_(row.roll(-padding))
                mask.copy_(mask.roll(-padding))
        return batch

    found = verdicts(subject(tmp_path, broken("qwen2_5_vl", encode=encode)))
    assert failures(found) == {"batch_generation"}
    assert "left" in found["batch_generation"].remedy


def test_another_prompt_in_generation(tmp_path):
    real = real_class("qwen2_5_vl")

    def encode(self, samples, *, with_targets, **how):
        prompt, self.prompt = self.prompt, self.prompt if with_targets else "What is this?"
        batch = real.encode(self, samples, with_targets=with_targets, **how)
        self.prompt = prompt
        return batch

    assert failures(verdicts(subject(tmp_path, broken("qwen2_5_vl", encode=encode)))) == {"training_is_generation"}


# ---- training


def test_lora_that_hits_nothing(tmp_path):
    train = TrainSettings(parts={"vision": "frozen", "text": "lora"}, lora=LoraSettings(targets=["q_prj"]))
    found = verdicts(subject(tmp_path, "qwen2_5_vl", train=train), loud=False)
    assert failures(found) == {"trained_tensors_move"}
    assert "hits nothing in text" in found["trained_tensors_move"].what
    assert "q_proj" in found["trained_tensors_move"].remedy


def test_lora_that_is_not_there(tmp_path, monkeypatch):
    """Adapters that were asked for and never put in, while other parts are trained."""
    monkeypatch.setattr(adapters, "add", lambda family, names, lora: None)
    train = TrainSettings(parts={"vision": "frozen", "text": "lora"})
    found = verdicts(subject(tmp_path, "qwen2_5_vl", train=train))
    assert failures(found) == {"trained_tensors_move"}
    assert 'text = "lora" opens none of its' in found["trained_tensors_move"].what


def test_sound_lora(tmp_path):
    """Also its second matrices, which are zero at first, and what stands beside them in the checkpoint."""
    train = TrainSettings(parts={"vision": "frozen", "text": "lora"}, gradient_checkpointing=True)
    probed = subject(tmp_path, "qwen2_5_vl", train=train)
    probed.family.save(tmp_path / "base")
    probed.family = opening.open_checkpoint(tmp_path / "base")
    found = verdicts(probed, "trained_tensors_move", "accumulation", "saved_and_opened")
    assert [verdict.status for verdict in found.values()] == ["passed"] * 3, found


@pytest.mark.parametrize("sound", [True, False])
def test_few_bits(tmp_path, sound):
    pytest.importorskip("bitsandbytes")
    base = find("qwen2_5_vl").tiny(CAPTIONS)
    with torch.no_grad():  # fresh weights are so small that the layers hardly matter
        for name, parameter in base.model.named_parameters():
            if ".layers." in name and parameter.dim() == 2:
                parameter.mul_(5)
    base.save(tmp_path / "base")

    def few():
        family = opening.open_checkpoint(tmp_path / "base", quantize="nf4")
        if not sound:
            for name, parameter in family.named_parameters():
                if hasattr(parameter, "quant_state") and ("down_proj" in name or "o_proj" in name):
                    parameter.data.random_(0, 256)
        return family

    probed = subject(tmp_path, "qwen2_5_vl", whole=lambda: opening.open_checkpoint(tmp_path / "base"))
    probed.family = few()
    found = verdicts(probed, "quantised")
    assert found["quantised"].status == ("passed" if sound else "failed"), found


def test_an_adapter_that_nothing_reads(tmp_path):
    real: Any = find("vision_encoder_decoder")

    def tiny(cls, captions=(), seed=0):
        family = real.tiny.__func__(cls, captions, seed)
        family.model.decoder.adapter = nn.Linear(4, 4)
        return family

    found = verdicts(subject(tmp_path, broken("vision_encoder_decoder", tiny=classmethod(tiny))))
    assert failures(found) == {"trained_tensors_move"}
    assert "decoder.adapter" in found["trained_tensors_move"].what


def test_a_frozen_part_that_moves(tmp_path):
    """As statistics of a tower do that is put into training mode."""
    real = real_class("cnn_rnn")

    def see(self, batch):
        if self.training:
            next(buffer for name, buffer in self.model.named_buffers() if name.endswith("running_var")).mul_(0.9)
        return real.see(self, batch)

    probed = subject(tmp_path, broken("cnn_rnn", see=see), train=TrainSettings(parts={"vision": "frozen"}))
    found = verdicts(probed)
    assert failures(found) == {"trained_tensors_move"}
    assert "should be frozen" in found["trained_tensors_move"].what


def test_gradients_that_end_at_a_frozen_part(tmp_path):
    """Checkpointing over frozen inputs, or a detach too many."""
    real = real_class("qwen2_5_vl")
    kind = broken("qwen2_5_vl", read=lambda self, batch: real.read(self, batch).detach())
    found = verdicts(subject(tmp_path, kind))
    assert failures(found) == {"trained_tensors_move"}


def test_accumulation_by_mean_of_means(tmp_path, monkeypatch):
    real = CaptionTrainer.compute_loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return real(self, model, inputs, return_outputs) / self.args.gradient_accumulation_steps

    monkeypatch.setattr(CaptionTrainer, "compute_loss", compute_loss)
    assert failures(verdicts(subject(tmp_path, "vision_encoder_decoder"))) == {"accumulation"}


def test_images_that_look_all_the_same(tmp_path):
    """The loss falls, but the two captions can't be told apart."""
    real = real_class("vision_encoder_decoder")

    def see(self, batch):
        one = torch.randn(real.see(self, batch)["features"].shape[1:], generator=torch.Generator().manual_seed(0))
        return {"features": one.expand(len(batch["pixel_values"]), -1, -1)}

    found = verdicts(
        subject(tmp_path, broken("vision_encoder_decoder", see=see), train=TrainSettings(parts={"vision": "frozen"}))
    )
    assert failures(found) == {"overfit"}


def test_a_checkpoint_that_leaves_weights_out(tmp_path):
    real = real_class("qwen2_5_vl")

    def save(self, folder):
        trained = self.model.state_dict()
        fresh = find("qwen2_5_vl").tiny(CAPTIONS)
        fresh.model.load_state_dict({n: t for n, t in trained.items() if "layers.1" not in n}, strict=False)
        fresh.prompt, fresh.generation = self.prompt, self.generation
        real.save(fresh, folder)

    found = verdicts(subject(tmp_path, broken("qwen2_5_vl", save=save)))
    assert failures(found) == {"saved_and_opened"}


def test_a_checkpoint_without_its_prompt(tmp_path):
    kind = broken("qwen2_5_vl", save_policy=lambda self, folder: None)
    probed = subject(tmp_path, kind)
    probed.family.prompt = "What is this?"
    found = verdicts(probed, "saved_and_opened")
    assert failures(found) == {"saved_and_opened"}
    assert "prompt" in found["saved_and_opened"].what


# ---- as a whole


def test_an_error_of_the_model_is_a_verdict(tmp_path):
    from cutline.check.examine import examine

    def forward(self, batch, label_smoothing=0.0):
        raise RuntimeError("shapes don't fit")

    found = {v.probe: v for v in examine(subject(tmp_path, broken("cnn_rnn", forward=forward)), ["no_future"])}
    assert "shapes don't fit" in found["no_future"].what
    assert found["no_future"].status == "failed"


def test_what_trains_nothing_is_not_probed_for_training(tmp_path):
    found = verdicts(subject(tmp_path, "vision_encoder_decoder", train=None))
    assert not failures(found)
    for probe in ("trained_tensors_move", "accumulation", "overfit", "saved_and_opened"):
        assert found[probe].status == "not applicable"


def test_an_unknown_probe_is_said_with_the_nearest(tmp_path):
    with pytest.raises(RecipeError, match="Did you mean no_future"):
        verdicts(subject(tmp_path, "cnn_rnn"), "no_futur")
