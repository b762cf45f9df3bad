"""Each probe fails on a family with the mistake that it looks for, and the other probes pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cutline import families
from cutline.core.errors import RecipeError
from cutline.families.common.loss import IGNORED, token_nll
from cutline.families.open import find
from cutline.families.outputs import Loss
from tests.check.making import broken, failures, real_class, run, subject

CAPTIONERS = [name for name in families.names() if "caption" in find(name).tasks]


@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_sound_family_passes_every_probe(name, tmp_path):
    reports = run(subject(tmp_path, name))
    assert not failures(reports), reports
    # a new family must be probed like the others
    assert not [report for report in reports.values() if report.status == "not judged"]
    for probe in ("no_future", "label_alignment", "end_token", "training_is_generation", "overfit"):
        assert reports[probe].status == "passed"


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

    reports = run(subject(tmp_path, broken("vision_encoder_decoder", forward=forward)))
    assert failures(reports) == {"label_alignment"}
    assert "shifted 2 times" in reports["label_alignment"].message
    assert reports["overfit"].status == "not judged"


def test_labels_not_shifted_at_all(tmp_path):
    def forward(self, batch, label_smoothing=0.0):
        nll, tokens = token_nll(self.hidden_states(batch), self.lm_head, batch["labels"], label_smoothing)
        return Loss(nll, nll.new_zeros(()), tokens)

    reports = run(subject(tmp_path, broken("qwen2_5_vl", forward=forward)))
    assert failures(reports) == {"label_alignment"}
    assert "not shifted" in reports["label_alignment"].message


def test_paligemma_without_token_types(tmp_path):
    """The mask is then bidirectional, and every caption token sees the tokens that it has to predict."""

    def forget(self, batch):
        return {} if "labels" in batch else real_class("paligemma").token_types(self, batch)

    reports = run(subject(tmp_path, broken("paligemma", token_types=forget)))
    assert failures(reports) == {"no_future"}
    assert "token_type_ids" in reports["no_future"].remedy


def test_paligemma_with_all_token_types_one(tmp_path):
    """The prompt then loses the bidirectional attention that PaliGemma was pretrained with."""
    kind = broken("paligemma", token_types=lambda self, batch: {"token_type_ids": torch.ones_like(batch["input_ids"])})
    assert failures(run(subject(tmp_path, kind))) == {"prompt_sees_itself"}


def relabelled(name: str, change: Any):
    """A family whose collate changes its labels."""
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

    assert failures(run(subject(tmp_path, relabelled(name, change)))) == {"end_token"}


def test_end_masked_as_padding(tmp_path):
    """pad == eos, and labels masked where they are the padding token: the end is never learned."""

    def change(self, batch):
        self.tokenizer.pad_token = self.tokenizer.eos_token
        batch["labels"][batch["labels"] == self.tokenizer.pad_token_id] = IGNORED

    reports = run(subject(tmp_path, relabelled("qwen2_5_vl", change)))
    assert failures(reports) == {"end_token"}
    assert "never by its id" in reports["end_token"].remedy


def test_an_end_that_generation_does_not_know(tmp_path):
    """BLIP-2-OPT's newline: the end token used in training is not one of generation's end tokens."""

    def change(self, batch):
        for row in batch["labels"]:
            row[(row != IGNORED).nonzero()[-1]] = self.tokenizer.pad_token_id

    reports = run(subject(tmp_path, relabelled("vision_encoder_decoder", change)), "end_token")
    assert failures(reports) == {"end_token"}
    assert "the last label of 4 of 4 captions is" in reports["end_token"].message


def test_generation_that_does_not_stop_at_the_end_token(tmp_path):
    real = real_class("vision_encoder_decoder")

    def generate(self, batch, settings, forced=None):
        return [one._replace(finished=False) for one in real.generate(self, batch, settings, forced=forced)]

    reports = run(subject(tmp_path, broken("vision_encoder_decoder", generate=generate)))
    assert failures(reports) == {"end_token"}
    assert "generation continues after the end token" in reports["end_token"].message


def test_two_start_tokens(tmp_path):
    def change(self, batch):
        labels = batch["labels"]
        start = torch.full_like(labels[:, :1], self.start_id)
        batch["labels"] = torch.cat([start, labels], 1)

    reports = run(subject(tmp_path, relabelled("cnn_rnn", change)))
    assert failures(reports) == {"one_bos"}
    assert "2 × '<bos>' in training" in reports["one_bos"].message


def test_prompt_among_the_labels(tmp_path):
    def change(self, batch):
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)

    assert failures(run(subject(tmp_path, relabelled("qwen2_5_vl", change)))) == {"prompt_not_learnt"}


def test_prompt_decoded_as_caption(tmp_path):
    real = real_class("qwen2_5_vl")

    def generate(self, batch, settings, forced=None):
        prompt = f"{self.prompt} "
        return [one._replace(text=prompt + one.text) for one in real.generate(self, batch, settings, forced=forced)]

    assert failures(run(subject(tmp_path, broken("qwen2_5_vl", generate=generate)))) == {"prompt_not_learnt"}


def test_image_tokens_cut_by_a_length_limit(tmp_path):
    limit = 600
    real = real_class("qwen2_5_vl")

    def collate(self, samples, **how):
        batch = real.collate(self, samples, **how)
        cut = {name: batch[name][:, -limit:] for name in ("input_ids", "attention_mask", "labels") if name in batch}
        return batch | cut

    assert failures(run(subject(tmp_path, broken("qwen2_5_vl", collate=collate)))) == {"image_tokens"}


def test_image_beyond_its_bound(tmp_path):
    """max_pixels that never reaches the processor (Qwen3-VL#891)."""
    probed = subject(tmp_path, "qwen2_5_vl")
    probed.family.policy = probed.family.policy.model_copy(update={"max_pixels": 32 * 32})
    reports = run(probed, "image_tokens")
    assert failures(reports) == {"image_tokens"}
    assert "allows 4" in reports["image_tokens"].message


# ---- batches


def test_rows_that_mix(tmp_path):
    real = real_class("vision_encoder_decoder")

    def decode_with_teacher_forcing(self, features, *rest):
        hidden, penalty = real.decode_with_teacher_forcing(self, features, *rest)
        return hidden + 0.1 * (hidden.mean(0, keepdim=True) - hidden), penalty

    family = broken("vision_encoder_decoder", decode_with_teacher_forcing=decode_with_teacher_forcing)
    assert failures(run(subject(tmp_path, family))) == {"rows_apart"}


def test_a_loss_that_is_a_mean_of_rows(tmp_path):
    """The loss of a batch of n is then not n times that of one."""
    real = real_class("qwen2_5_vl")

    def forward(self, batch, label_smoothing=0.0):
        loss = real.forward(self, batch, label_smoothing)
        return loss._replace(nll=loss.nll / len(batch["rows"]))

    assert failures(run(subject(tmp_path, broken("qwen2_5_vl", forward=forward)))) == {"batch_loss"}


def test_padding_that_is_seen(tmp_path):
    """Rows are padded on the left in training, without a mask."""
    real = real_class("qwen2_5_vl")

    def collate(self, samples, *, with_targets, **how):
        batch = real.collate(self, samples, with_targets=with_targets, **how)
        if with_targets:
            for row, mask in enumerate(batch["attention_mask"]):
                for name in ("input_ids", "labels"):
                    batch[name][row] = batch[name][row].roll(int((mask == 0).sum()))
            batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
        return batch

    assert failures(run(subject(tmp_path, broken("qwen2_5_vl", collate=collate)))) == {"batch_loss"}


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

    reports = run(subject(tmp_path, broken("qwen2_5_vl", collate=collate)))
    assert failures(reports) == {"batch_generation"}
    assert "left" in reports["batch_generation"].remedy


def test_another_prompt_in_generation(tmp_path):
    real = real_class("qwen2_5_vl")

    def collate(self, samples, *, with_targets, **how):
        prompt, self.prompt = self.prompt, self.prompt if with_targets else "What is this?"
        batch = real.collate(self, samples, with_targets=with_targets, **how)
        self.prompt = prompt
        return batch

    assert failures(run(subject(tmp_path, broken("qwen2_5_vl", collate=collate)))) == {"training_is_generation"}


# ---- all probes together


def test_an_error_of_the_model_is_a_failure(tmp_path):
    def forward(self, batch, label_smoothing=0.0):
        raise RuntimeError("shapes don't fit")

    reports = run(subject(tmp_path, broken("cnn_rnn", forward=forward)), "no_future", debug=False)
    assert "shapes don't fit" in reports["no_future"].message
    assert reports["no_future"].status == "failed"


def test_what_trains_nothing_is_not_probed_for_training(tmp_path):
    reports = run(subject(tmp_path, "vision_encoder_decoder", train=None))
    assert not failures(reports)
    for probe in ("trained_tensors_move", "accumulation", "overfit", "saved_and_opened"):
        assert reports[probe].status == "not applicable"


def test_an_unknown_probe_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(RecipeError, match="Did you mean no_future"):
        run(subject(tmp_path, "cnn_rnn"), "no_futur")
