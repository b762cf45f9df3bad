"""The configuration of the recurrent captioner in ``cnn_rnn.py``."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from cutline.core.errors import CheckpointError

#: Gates of each recurrent cell.
GATES = {"lstm": 4, "gru": 3}


class CnnRnnConfig(PreTrainedConfig):
    """The settings of a CnnRnnForConditionalGeneration.

    vision_config: the tower's own config, or its dict with `model_type`. feature_size: its channels; None: measured.
    cell: "lstm" or "gru". attention: "additive" as in the paper, or the cheaper "dot". gate: Xu's beta as one number a
    step ("scalar", the paper) or one for each channel of the context ("channel"). Sizes are widths: embedding (also of
    the deep output), hidden (recurrent state), memory (projected features), attention (keys). dropout: on embeddings,
    states and deep outputs; feature_dropout: on the tower's features. doubly_stochastic: weight of the penalty that
    makes every cell be looked at about once (lambda in the paper, where it multiplies a sum over cells; here it
    multiplies their mean). label_smoothing is the trainer's business, not the model's.
    """

    model_type = "cnn_rnn"
    sub_configs_defaults: ClassVar = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="mobilenet_v2")
    }

    vision_config: PreTrainedConfig | dict[str, Any] | None = None
    feature_size: int | None = None
    cell: str = "lstm"
    attention: str = "additive"
    gate: str = "scalar"
    embedding_size: int = 512
    hidden_size: int = 512
    memory_size: int = 512
    attention_size: int = 512
    dropout: float = 0.5
    feature_dropout: float = 0.1
    doubly_stochastic: float = 1.0
    vocab_size: int = 5000
    bos_token_id: int | None = 0
    pad_token_id: int = 1
    eos_token_id: int | list[int] | None = 2
    unk_token_id: int | None = 3
    decoder_start_token_id: int = 0
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        for name, choices in {
            "cell": tuple(GATES),
            "attention": ("additive", "dot"),
            "gate": ("scalar", "channel"),
        }.items():
            if getattr(self, name) not in choices:
                raise CheckpointError(
                    f"{name} = {getattr(self, name)!r} is not known to cnn_rnn.", f"Choose {' or '.join(choices)}."
                )
        super().__post_init__(**kwargs)


AutoConfig.register(CnnRnnConfig.model_type, CnnRnnConfig, exist_ok=True)
