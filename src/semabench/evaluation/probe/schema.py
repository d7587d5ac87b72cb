"""The keys of `measure=probe`."""

from __future__ import annotations

from dataclasses import dataclass

from semabench.config.check import check_model
from semabench.config.key import ABOVE_0, Need, key
from semabench.evaluation.schema import TargetConfig, require_lists

CLASSIFIERS = ("knn", "linear")

_KNN = Need(
    lambda c: "knn" in c.classifiers, "without nearest neighbours", "add knn to classifiers"
)
_LINEAR = Need(
    lambda c: "linear" in c.classifiers, "without a linear layer", "add linear to classifiers"
)


@dataclass
class ProbeConfig(TargetConfig):
    """`semabench eval measure=probe`."""

    measure: str = key("probe")
    output_dir: str | None = key(None, "null: <run>/probe, or outputs/probe/<model>")
    classifiers: list[str] = key(
        [*CLASSIFIERS],
        "knn: the nearest neighbours by cosine vote | linear: a layer is fitted",
        choices=CLASSIFIERS,
    )
    neighbors: list[int] = key([20], "of the training images, that vote", low=1, needs=[_KNN])
    temperature: float = key(
        0.07, "a neighbour's vote is exp(cosine / this)", low=ABOVE_0, needs=[_KNN]
    )
    penalties: list[float] = key(
        [10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5],
        "on ‖W‖²/2; the one that is best on every tenth training image, left out, fits them all",
        low=0,
        needs=[_LINEAR],
    )


def check_probe(config: ProbeConfig) -> None:
    """Raise a SemabenchError that names the first list that is empty."""
    check_model(config.model)
    require_lists(config, {"resolutions": "[128,224]", "classifiers": "[knn,linear]"})
    if "knn" in config.classifiers:
        require_lists(config, {"neighbors": "[20]"})
    if "linear" in config.classifiers:
        require_lists(config, {"penalties": "[0.1,0.001]"})
