"""The keys of `measure=accuracy`, and those that name a model for any measure."""

from __future__ import annotations

from dataclasses import dataclass

from semabench.config.check import check_model
from semabench.config.key import Need, key
from semabench.config.schema import LoggerConfig
from semabench.evaluation.schema import TargetConfig


@dataclass
class EvalConfig(TargetConfig):
    """`semabench eval`: top-1, top-5 and inference speed on real images."""

    logger: LoggerConfig = key(LoggerConfig)
    labels: str = key(
        "own",
        "own: the dataset's | real: ReaL's, several an image, of ImageNet's validation images",
        choices=("own", "real"),
    )
    logits: str = key(
        "own",
        "on some of the model's classes: own (theirs alone compete, as ImageNet-A and -R are told)"
        " | all",
        choices=("own", "all"),
        needs=[Need(lambda c: c.labels == "own", "on ReaL's labels, which are of all classes")],
    )
    compile: bool = key(False)
    graph: bool = key(True, "on a GPU, record each size's forward pass as a CUDA graph")


def check_accuracy(config: EvalConfig) -> None:
    """Raise a SemabenchError if two keys say which weights to take."""
    check_model(config.model)
