import logging
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import nn
from torch.nn.functional import cosine_similarity

from lab.clip import Clip
from lab.clip.load import quiet
from lab.errors import LabError


def images(size: tuple[int, int], count: int = 3) -> torch.Tensor:
    """Soft random pictures in [-1, 1], as bytes would be."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return (smooth * 255).round() / 127.5 - 1


def test_vectors_have_unit_norm(tiny_clip: Clip) -> None:
    for vectors in (
        tiny_clip.encode_images(images((40, 40))),
        tiny_clip.encode_text(["a rose", "a red rose"]),
    ):
        assert vectors.shape[1] == tiny_clip.dim == 16
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert not vectors.requires_grad


@pytest.mark.parametrize(
    ("how", "size"),
    [
        ({}, (32, 32)),
        ({}, (80, 80)),
        ({}, (50, 70)),
        ({"resize_mode": "squash"}, (50, 70)),
        ({"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}, (16, 16)),
    ],
)
def test_images_are_prepared_as_open_clip_does(tiny: str, how: dict[str, Any], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = open_clip.create_model(tiny, force_preprocess_cfg=how)
    ours = Clip(network, open_clip.get_tokenizer(tiny), tiny, {}).encode_images(images(size))
    transform = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    as_bytes = ((images(size) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    theirs = network.encode_image(torch.stack([transform(Image.fromarray(picture)) for picture in as_bytes]))
    assert float(cosine_similarity(ours, theirs).min()) > 0.999


def test_text_goes_through_the_models_own_tokenizer(tiny: str, tiny_clip: Clip, tiny_network: nn.Module) -> None:
    prompts = ["a rose", "a photo of an iris, a type of flower"]
    tokens = open_clip.get_tokenizer(tiny)(prompts)
    expected = tiny_network.encode_text(tokens, normalize=True)  # type: ignore[operator]
    torch.testing.assert_close(tiny_clip.encode_text(prompts), expected)


def test_a_long_prompt_is_cut_and_its_end_is_told_once(tiny_clip: Clip, caplog: pytest.LogCaptureFixture) -> None:
    length = len(tiny_clip.tokenizer(["rose"])[0]) - 2  # a start and an end are heard as well
    whole, longer = "rose " * length, "rose " * length + "with blue petals"
    with caplog.at_level(logging.WARNING):
        vector = tiny_clip.encode_text([whole])
        assert not caplog.records
        for _ in range(2):
            torch.testing.assert_close(tiny_clip.encode_text([longer]), vector)
    (record,) = caplog.records
    assert f"hears {length} pieces of words" in record.message and "misses 'with blue petals'" in record.message


def test_the_model_is_frozen_and_in_eval_mode(tiny_clip: Clip) -> None:
    assert not tiny_clip.model.training
    assert not any(parameter.requires_grad for parameter in tiny_clip.model.parameters())


def test_fingerprint_is_that_of_the_weights(tiny: str) -> None:
    def build(seed: int) -> Clip:
        torch.manual_seed(seed)
        with quiet():
            return Clip(open_clip.create_model(tiny), open_clip.get_tokenizer(tiny), tiny, {})

    assert build(0).fingerprint == build(0).fingerprint != build(1).fingerprint
    changed = build(0)
    next(changed.model.parameters()).view(-1)[0] += 1e-3
    assert changed.fingerprint != build(0).fingerprint
    assert len(changed.fingerprint) == 16 and int(changed.fingerprint, 16) >= 0


def test_tokens_are_what_vectors_are_pooled_from(tiny_clip: Clip) -> None:
    """The end-of-text place, through the projection, is the sentence's vector."""
    prompts = ["a red flower", "two words more than that"]
    vectors, tokens = tiny_clip.encode_tokens(prompts)
    torch.testing.assert_close(vectors, tiny_clip.encode_text(prompts))
    ends = tiny_clip.tokenizer(prompts).argmax(dim=1)
    pooled = tokens[torch.arange(2), ends] @ tiny_clip.model.text_projection
    torch.testing.assert_close(torch.nn.functional.normalize(pooled, dim=1), vectors)


def test_a_tower_without_tokens_is_named(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tiny_clip.model, "ln_final")
    with pytest.raises(LabError, match="its text tower gives no tokens"):
        tiny_clip.encode_tokens(["a"])
