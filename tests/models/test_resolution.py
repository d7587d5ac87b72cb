"""What a model makes of images of another size."""

import pytest
import torch

from semabench.models import build_model
from semabench.models.resolution import say_unseen, seen_pixels


@pytest.mark.parametrize(
    ("name", "resolution", "seen"),
    [
        ("vit_tiny_patch16_224", 79, 64),  # 4 patches of 16
        ("mixer_s16_224", 79, 64),  # whose head begins at zero
        ("resnet10t", 79, 79),  # whose branches do
        ("convnext_atto", 79, 76),  # a stem of 4; wider kernels see what lower stages leave out
        ("convnext_atto", 64, 64),
        ("sema_nano", 79, 79),
    ],
)
def test_what_a_model_leaves_out_of_an_image_is_told(name, resolution, seen, capsys):
    model = build_model(name, num_classes=3, resolution=resolution, options={})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert seen_pixels(model, resolution) == seen
    assert say_unseen(model, resolution) == (None if seen == resolution else seen)
    told = f"sees {seen} of {resolution} px" in capsys.readouterr().err
    assert told is (seen < resolution)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
