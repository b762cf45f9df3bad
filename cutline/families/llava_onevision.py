"""LLaVA-OneVision: SigLIP, a two-layer MLP, Qwen2; images in tiles, with a line break after each row of cells.

Source: Li et al. 2024, arXiv:2408.03326; the code of Hugging Face transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import transformers
from torch import Tensor
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cutline.families.base import Batch
from cutline.families.common.image_only import ImageOnly, without_video
from cutline.families.common.tiles import TiledFamily, padded
from cutline.families.common.tiny import qwen2_tokenizer, tiny_text, tiny_vision, with_ends
from cutline.families.common.tower import unused_after

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}\n{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class LlavaOnevisionProcessor(ImageOnly, transformers.LlavaOnevisionProcessor):
    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_image_tokens: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        video_token: str = "<video>",
        vision_aspect_ratio: str = "anyres_max_9",
        **options: Any,
    ):
        super().__init__(
            image_processor,
            tokenizer,
            num_image_tokens=num_image_tokens,
            vision_feature_select_strategy=vision_feature_select_strategy,
            chat_template=chat_template,
            image_token=image_token,
            video_token=video_token,
            vision_aspect_ratio=vision_aspect_ratio,
            **without_video(options),
        )


class LlavaOnevision(TiledFamily):
    model_class = LlavaOnevisionForConditionalGeneration
    processor_class = LlavaOnevisionProcessor
    unused = r"model\.vision_tower\.(?:vision_model\.)?(?:post_layernorm|head)\."

    def __init__(self, model: Any, processor: Any, prompt: str | None = None):
        super().__init__(model, processor, prompt)
        self.unused = unused_after(self.config.vision_config, self.config.vision_feature_layer)

    @property
    def parts(self) -> Mapping[str, str]:
        return {**super().parts, "bridge": r"model\.(?:multi_modal_projector\.|image_newline$)"}

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        tokenizer = qwen2_tokenizer(captions, image_token="<image>", video_token="<video>")
        token = tokenizer.convert_tokens_to_ids
        grid = [[28, 56], [56, 28], [56, 56]]  # height and width of what an image is cut from, in px
        vision = tiny_vision(model_type="siglip_vision_model", image_size=28, patch_size=7, vision_use_head=False)
        config = LlavaOnevisionConfig(
            vision_config=vision,
            text_config=tiny_text(tokenizer, model_type="qwen2", bos_token_id=None),
            image_token_index=token("<image>"),
            video_token_index=token("<video>"),
            image_grid_pinpoints=grid,
        )
        processor = cls.processor_class(
            LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=grid),
            tokenizer,
            num_image_tokens=16,
            vision_feature_select_strategy="full",
            chat_template=_TEMPLATE,
        )
        return cls(with_ends(LlavaOnevisionForConditionalGeneration(config), tokenizer), processor)

    def set_policy(self, policy: Any) -> None:
        super().set_policy(policy)
        if policy.tiles and policy.tiles > 1:
            side = self.config.vision_config.image_size
            grid = [
                [height, width]
                for height, width in self.config.image_grid_pinpoints
                if (height // side) * (width // side) < policy.tiles
            ]
            if grid:
                self.image_processor.image_grid_pinpoints = self.config.image_grid_pinpoints = grid

    def image_texts(self, visual: Batch) -> list[str]:
        tiles = visual["tiles"].tolist()
        side = self.config.vision_config.image_size
        known = {
            "batch_num_images": [1] * len(tiles),
            "image_sizes": visual["image_sizes"].tolist(),
            "pixel_values": [[torch.empty(3, side, side, device="meta")]],
        }
        whole = int(self.processor.num_image_tokens) + 1  # a single tile and the line break
        whole -= self.processor.vision_feature_select_strategy == "default"
        return [
            self.placeholder * whole if count == 1 else self.processor.replace_image_token(known, image)
            for image, count in enumerate(tiles)
        ]

    # ---- images

    def pixels(self, images: Sequence[Any]) -> Batch:
        if self.policy.tiles == 1:  # as the processor does where a prompt has several images
            made = self.process([list(images)] if len(images) > 1 else [[images[0], images[0]]])
            tiles = [1] * len(images)
        else:
            made = self.process([[image] for image in images])
            tiles = [self._tiles(size) for size in made["image_sizes"].tolist()]
        pieces = [piece[:count] for piece, count in zip(made["pixel_values"], tiles, strict=False)]
        return {
            "pixel_values": torch.cat(pieces),
            "image_sizes": torch.as_tensor(made["image_sizes"])[: len(tiles)],
            "tiles": torch.tensor(tiles),
        }

    def _tiles(self, size: Sequence[int]) -> int:
        from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

        grid, side = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        return int(image_size_to_num_patches(list(size), grid, side))

    def pixel_inputs(self, batch: Batch) -> Mapping[str, Tensor]:
        rows = batch["rows"]
        pieces = self.of_rows(batch["pixel_values"], batch, rows)
        if self.policy.tiles == 1:
            several = torch.tensor([len(rows), 0])  # "a prompt of several images", which aren't cut
            return {"pixel_values": torch.cat(pieces), "image_sizes": batch["image_sizes"][rows],
                    "batch_num_images": several if len(rows) > 1 else torch.tensor([2])}  # fmt: skip
        return {"pixel_values": padded(pieces), "image_sizes": batch["image_sizes"][rows]}

    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        model = self.model.model
        projected = model.multi_modal_projector(features["features"])
        packed, _ = model.pack_image_features(
            torch.split(projected, features["tiles"].tolist()),
            features["image_sizes"],
            image_newline=model.image_newline,
            vision_aspect_ratio=self.config.vision_aspect_ratio,
        )
        return BaseModelOutputWithPooling(pooler_output=[packed[row] for row in rows.tolist()])
