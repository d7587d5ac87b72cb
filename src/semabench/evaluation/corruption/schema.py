"""The keys of `measure=corruption`."""

from __future__ import annotations

from dataclasses import dataclass

from semabench.config.check import check_model
from semabench.config.key import key
from semabench.config.schema import DataConfig
from semabench.errors import SemabenchError
from semabench.evaluation.schema import TargetConfig, require_lists

#: Of AlexNet in percent, over the five severities: what errors are told relative to (Hendrycks and
#: Dietterich 2019, arXiv 1903.12261, table 4 and its code).
ALEXNET_ERRORS = {
    "gaussian_noise": 88.6428,
    "shot_noise": 89.4468,
    "impulse_noise": 92.2640,
    "defocus_blur": 81.9880,
    "glass_blur": 82.6268,
    "motion_blur": 78.5948,
    "zoom_blur": 79.8360,
    "snow": 86.6816,
    "frost": 82.6572,
    "fog": 81.9324,
    "brightness": 56.4592,
    "contrast": 85.3204,
    "elastic_transform": 64.6056,
    "pixelate": 71.7840,
    "jpeg_compression": 60.6500,
}
SEVERITIES = 5


@dataclass
class CorruptionConfig(TargetConfig):
    """`semabench eval measure=corruption data=imagenet_c`."""

    measure: str = key("corruption")
    data: DataConfig | None = key(None, "data.source holds <corruption>/<severity>/<class>/")
    output_dir: str | None = key(None, "null: <run>/corruption, or outputs/corruption/<model>")
    corruptions: list[str] = key([*ALEXNET_ERRORS], choices=ALEXNET_ERRORS)
    severities: list[int] = key([1, 2, 3, 4, 5], low=1, high=SEVERITIES)


def check_corruption(config: CorruptionConfig) -> None:
    """Raise a SemabenchError that names the first key that does not fit the others."""
    check_model(config.model)
    lists = {"resolutions": "[224]", "corruptions": "[fog,snow]", "severities": "[1,2,3,4,5]"}
    require_lists(config, lists)
    if config.data is None or config.data.source is None:
        raise SemabenchError("no corrupted images: give data=imagenet_c data.source=FOLDER.")
    if config.data.loader != "folder":
        raise SemabenchError(
            f"data.loader={config.data.loader} does not read the folders of corrupted images: set "
            "data.loader=folder."
        )
