"""What the named models share on their way into timm's registry."""

from __future__ import annotations

from typing import Any, TypeVar

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg
from torch import nn

from semabench.errors import SemabenchError

ModelT = TypeVar("ModelT", bound=nn.Module)


def default_cfg(**differences: Any) -> dict[str, Any]:
    """Return timm's description of a model: published at 224 px, any size allowed."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv1.conv",
        "classifier": "head.fc",
        "license": "apache-2.0",
        **differences,
    }


def create(
    model_class: type[ModelT],
    name: str,
    pretrained: bool,
    arguments: dict[str, Any],
    *,
    official: str,
    stages: int = 0,
) -> ModelT:
    """Build a named model in timm's way; one with stages may also be built for its features.

    Raises:
        SemabenchError: ``pretrained`` is asked for; no weights are hosted here for any model.
    """
    if pretrained:
        raise SemabenchError(
            f"No pretrained weights of {name} are known; for an official {official} checkpoint "
            "name its file (checkpoint=...)."
        )
    features = {"out_indices": tuple(range(stages)), "feature_cls": "getter"}
    model: ModelT = build_model_with_cfg(
        model_class,
        name,
        pretrained=False,
        feature_cfg=features if stages else None,
        **arguments,
    )
    return model
