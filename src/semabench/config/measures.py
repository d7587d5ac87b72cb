"""What eval.py can measure, and the schema and the checks of each."""

from __future__ import annotations

from collections.abc import Iterable

from omegaconf import DictConfig

from semabench.config.check import check_values
from semabench.config.cost import CostConfig, check_cost
from semabench.config.dispersion import DispersionConfig, check_dispersion
from semabench.config.schema import EvalConfig
from semabench.config.study import StudyConfig, check_study
from semabench.errors import SemabenchError, nearest

Schema = type[EvalConfig] | type[CostConfig] | type[DispersionConfig] | type[StudyConfig]

SCHEMAS: dict[str, Schema] = {
    "accuracy": EvalConfig,
    "cost": CostConfig,
    "dispersion": DispersionConfig,
    "study": StudyConfig,
}


def schema_of(composed: DictConfig) -> Schema:
    """Return the schema of a config that eval.py composed.

    Raises:
        SemabenchError: there is no such `measure`.
    """
    measure = str(composed.get("measure", "accuracy"))
    if measure not in SCHEMAS:
        raise SemabenchError(f"measure={measure} is not known.{nearest(measure, SCHEMAS)}")
    return SCHEMAS[measure]


def check_measure(config: EvalConfig | CostConfig | DispersionConfig | StudyConfig) -> None:
    """Raise a SemabenchError that names the first key whose value cannot be used."""
    if isinstance(config, CostConfig):
        check_cost(config)
    elif isinstance(config, DispersionConfig):
        check_dispersion(config)
    elif isinstance(config, StudyConfig):
        check_study(config)
    else:
        check_values(config)


def schema_asked_for(words: Iterable[str]) -> Schema:
    """Return the schema that a command line means, `measure=cost_baselines` being of cost."""
    for word in words:
        key, _, value = word.partition("=")
        if key == "measure":
            return SCHEMAS.get(value.split("_")[0], EvalConfig)
    return EvalConfig
