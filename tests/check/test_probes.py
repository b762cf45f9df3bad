"""Each probe is proved by a family that is broken in the way that it looks for: it fires, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cutline import families
from cutline.core.errors import RecipeError
from cutline.families.base import Loss
from cutline.families.common.loss import IGNORED, token_nll
from cutline.families.open import find
from tests.check.making import broken, failures, real_class, subject, verdicts

CAPTIONERS = [name for name in families.names() if "caption" in find(name).tasks]


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
        features = self.with_image_features(batch)["features"]
        hidden, penalty = self.decode_with_teacher_forcing(features, batch["rows"], inputs, labels != IGNORED)
        nll, tokens = token_nll(hidden[:, :-1], self.lm_head, labels[:, 1:], label_smoothing)
        return Loss(nll, penalty, tokens)

    found = verdicts(subject(tmp_path, broken("vision_encoder_decoder", forward=forward)))
    assert failures(found) == {"label_alignment"}
    assert "shifted 2 times" in found["label_alignment"].what
    assert found["overfit"].status == "not judged"


def test_labels_not_shifted_at_all(tmp_path):
    def forward(self, batch, label_smoothing=0.0):
        nll, tokens = token_nll(self.hidden_states(batch), self.lm_head, batch["labels"], label_smoothing)
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

    def collate(self, samples, *, with_targets, **how):
        batch = real.collate(self, samples, with_targets=with_targets, **how)
        if with_targets:
            change(self, batch)
        return batch

    return broken(name, collate=collate)


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

    def collate(self, samples, **how):
        batch = real.collate(self, samples, **how)
        cut = {name: batch[name][:, -limit:] for name in ("input_ids", "attention_mask", "labels") if name in batch}
        return batch | cut

    assert failures(verdicts(subject(tmp_path, broken("qwen2_5_vl", collate=collate)))) == {"image_tokens"}


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

    def decode_with_teacher_forcing(self, features, *rest):
        hidden, penalty = real.decode_with_teacher_forcing(self, features, *rest)
        return hidden + 0.1 * (hidden.mean(0, keepdim=True) - hidden), penalty

    family = broken("vision_encoder_decoder", decode_with_teacher_forcing=decode_with_teacher_forcing)
    assert failures(verdicts(subject(tmp_path, family))) == {"rows_apart"}


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

    def collate(self, samples, *, with_targets, **how):
        batch = real.collate(self, samples, with_targets=with_targets, **how)
        if with_targets:
            for row, mask in enumerate(batch["attention_mask"]):
                for name in ("input_ids", "labels"):
                    batch[name][row] = batch[name][row].roll(int((mask == 0).sum()))
            batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
        return batch

    assert failures(verdicts(subject(tmp_path, broken("qwen2_5_vl", collate=collate)))) == {"batch_loss"}


def test_prompts_padded_on_the_right(tmp_path):
    real = real_class("qwen2_5_vl")

    def collate(self, samples, *, with_targets, **how):
        batch = real.collate(self, samples, with_targets=with_targets, **how)
        if not with_targets:
            for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                padding = int((mask == 0).sum())
                row.copy_(row.roll(-padding))
                mask.copy_(mask.roll(-padding))
        return batch

    found = verdicts(subject(tmp_path, broken("qwen2_5_vl", collate=collate)))
    assert failures(found) == {"batch_generation"}
    assert "left" in found["batch_generation"].remedy


def test_another_prompt_in_generation(tmp_path):
    real = real_class("qwen2_5_vl")

    def collate(self, samples, *, with_targets, **how):
        prompt, self.prompt = self.prompt, self.prompt if with_targets else "What is this?"
        batch = real.collate(self, samples, with_targets=with_targets, **how)
        self.prompt = prompt
        return batch

    assert failures(verdicts(subject(tmp_path, broken("qwen2_5_vl", collate=collate)))) == {"training_is_generation"}


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
