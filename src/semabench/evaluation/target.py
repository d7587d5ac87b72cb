"""The model to evaluate: a checkpoint of ours, or a name with official or timm weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from yaml import YAMLError

from semabench.config.run_name import config_digest
from semabench.config.schema import DataConfig, ModelConfig
from semabench.data.augment.batch import Normalize
from semabench.data.loader import EvalLoader, check_data, require_eval_files
from semabench.errors import SemabenchError, first_line
from semabench.evaluation.classes import IMAGENET_CLASSES, columns_of, imagenet_wnids, wnids_of
from semabench.evaluation.schema import TargetConfig
from semabench.files import sha256_file
from semabench.models import (
    backend_name,
    build_model,
    mixer_name,
    set_resolution,
    set_window_size,
)
from semabench.models.checkpoint import Weights, load_checkpoint
from semabench.models.flops import count_gmacs, count_parameters
from semabench.models.resolution import say_unseen, try_size
from semabench.results.record import Record, git_commit, software_versions
from semabench.results.store import RESULTS_NAME
from semabench.training.checkpoint import CONFIG, DIRECTORY, TrainedModel, load_trained
from semabench.training.device import device_label, layout_label, options_label
from semabench.training.forward import Forward

CPU = torch.device("cpu")


@dataclass(frozen=True)
class EvalTarget:
    """A model with its weights, and all that its rows say of it.

    Attributes:
        model: in eval mode, on its device.
        fields: those of `Record` that describe the model, its weights and its training.
        data: what to evaluate on.
        classes: those it was trained on, in order; None where its weights do not say.
        num_classes: of its head.
        mean, std: of its normalisation.
        output_dir: where its results.jsonl is.
        run_dir: the run that trained it, if it was one of ours.
        train_config: of that run, as plain values; empty if there is none.
        device, precision, layout: of what it computes.
    """

    model: nn.Module
    fields: dict[str, Any]
    data: DataConfig
    classes: list[str] | None
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output_dir: Path
    run_dir: Path | None = None
    train_config: dict[str, Any] = field(default_factory=dict)
    device: torch.device = CPU
    precision: str = "32-true"
    layout: str = ""

    def results(self, output_dir: str | None, kind: str) -> Path:
        """Return the file of a measure's rows beside those of accuracy: ``<run>/<kind>/``."""
        beside = Path("outputs") / kind / self.fields["model"]
        own = self.run_dir / kind if self.run_dir else beside
        return Path(output_dir or own) / RESULTS_NAME

    def row(self, loader: EvalLoader, resolution: int, **more: Any) -> Record:
        """Return what is known of a measurement on these images before it is made.

        The model is brought to that resolution.

        Raises:
            SemabenchError: it cannot take it.
        """
        set_resolution(self.model, resolution)
        try_size(self.model, resolution, 1, self.num_classes or None, train=False)
        told = {
            "dataset": self.data.name,
            "fingerprint": loader.fingerprint,
            "classes": len(loader.classes),
            "n": loader.num_samples,
            "seen_resolution": say_unseen(self.model, resolution),
            "crop_pct": self.data.crop_pct,
            "interpolation": self.data.interpolation,
            "precision": self.precision,
            "backend": backend_name(self.model, self.device),
            "device": device_label(self.device),
            "layout": self.layout,
            "params": count_parameters(self.model),
            "gmacs": count_gmacs(self.model, resolution),
            "versions": software_versions(),
            "commit": git_commit(),
        }
        return Record(resolution=resolution, **(self.fields | told | more))

    def forward(self, part: nn.Module | None = None, *, graph: bool = True) -> Forward:
        """Return the model, or a part of it, as it goes from uint8 images to its output."""
        normalize = Normalize(self.mean, self.std).to(self.device)
        double = self.precision == "64-true"
        prepare = (lambda images: normalize(images).double()) if double else normalize
        return Forward(part or self.model, prepare, self.device, self.precision, graph=graph)

    def columns(self, theirs: list[str]) -> list[int]:
        """Return the logit of each of a dataset's classes; raises as `columns_of`."""
        return columns_of(theirs, self.known(theirs), self.num_classes, self.fields["model"])

    def known(self, theirs: list[str]) -> list[str] | None:
        """Return the names of the model's classes; None where they can only be taken on trust.

        Weights of others have no names: a thousand classes are ImageNet's, unless the dataset has
        as many and shares not one name.
        """
        if self.classes is None or self.train_config or len(theirs) != self.num_classes:
            return self.classes
        numbered = set(theirs) == {str(number) for number in range(len(theirs))}
        shared = set(self.classes) & {*theirs, *wnids_of(theirs)}
        return self.classes if numbered or shared else None


def load_target(config: TargetConfig, device: torch.device, precision: str) -> EvalTarget:
    """Build the model that ``config`` names, load its weights, and bring it to the device.

    Raises:
        SemabenchError: neither or both of checkpoint and model given, a missing or damaged file,
            a checkpoint of another model, no dataset,
            or no images rendered for a resolution.
    """
    if config.checkpoint is None and config.model is None:
        raise SemabenchError("nothing to evaluate: give checkpoint=RUN or model=NAME.")
    if config.checkpoint is not None and config.model is not None:
        raise SemabenchError(
            "checkpoint=... brings its own model: leave model=... out, or give official weights "
            "as model.checkpoint=PATH."
        )
    if config.data is not None:
        check_data(config.data)
    target = from_run(config) if config.checkpoint is not None else _from_name(config)
    if config.window_size is not None:
        set_window_size(target.model, config.window_size)
        trained = [o for o in target.fields["options"].split(",") if o]
        kept = [o for o in trained if not o.startswith("window_size=")]
        changed = [*kept, f"window_size={config.window_size}"]
        target.fields["options"] = ",".join(sorted(changed))
    target.model.eval().to(device)
    if precision == "64-true":
        target.model.double()
    if config.channels_last:
        target.model.to(memory_format=torch.channels_last)
    require_eval_files(target.data, config.resolutions)
    layout = layout_label(config.channels_last)
    return replace(target, device=device, precision=precision, layout=layout)


def from_run(config: TargetConfig) -> EvalTarget:
    """Build the model of a run of ours with its weights, on the CPU; its data need not be there."""
    assert config.checkpoint is not None
    trained = load_trained(Path(config.checkpoint))
    told = trained.describe["config"]
    options = told["model"]["options"]
    model = build_model(
        told["model"]["name"],
        num_classes=len(trained.describe["classes"]),
        resolution=told["data"]["resolution"],
        mixer=told["model"]["mixer"],
        fused_attention=told["model"]["fused_attention"],
        options=options,
    )
    which = _load_weights(model, trained, config.weights)
    run_dir = trained.path.parent.parent if trained.path.parent.name == DIRECTORY else None
    fields = {
        "model": told["model"]["name"],
        "mixer": mixer_name(model) or "",
        "options": options_label(options),
        "checkpoint": trained.digest,
        "weights": which,
        "recipe": told["recipe"]["name"],
        "config": config_digest(told, seed=False),
        "seed": told["seed"],
        "epochs": trained.epochs,
        "train_resolution": told["data"]["resolution"],
        "train_resolutions": tuple(told["recipe"].get("mixed_resolutions") or ()),
        "run": run_dir.name if run_dir else "",
    }
    return EvalTarget(
        model=model,
        fields=fields,
        data=config.data or _data_of_run(run_dir, trained.describe),
        classes=trained.describe["classes"],
        num_classes=len(trained.describe["classes"]),
        mean=tuple(trained.describe["mean"]),
        std=tuple(trained.describe["std"]),
        output_dir=Path(config.output_dir or run_dir or f"outputs/eval/{trained.path.stem}"),
        run_dir=run_dir,
        train_config=told,
    )


def _data_of_run(run_dir: Path | None, describe: dict[str, Any]) -> DataConfig:
    """Take the paths from config.yaml beside the checkpoint, which its owner may have mended.

    A relative path that leads nowhere from here is taken from where the run was started.
    """
    source = describe["config"]["data"]
    if run_dir is not None and (run_dir / CONFIG).exists():
        try:
            source = OmegaConf.load(run_dir / CONFIG).data
        except (OmegaConfBaseException, YAMLError, AttributeError, OSError) as error:
            raise SemabenchError(
                f"{run_dir / CONFIG} cannot be read ({first_line(error)}): mend it, or "
                "remove it to use the config in the checkpoint."
            ) from error
    try:
        data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), source))
    except (OmegaConfBaseException, ValueError) as error:
        raise SemabenchError(
            f"the data config of {run_dir or 'the checkpoint'} is not valid: {first_line(error)}"
        ) from error
    assert isinstance(data, DataConfig)
    for key in ("packed", "source"):
        path = getattr(data, key)
        there = Path(describe.get("directory", ".")) / (path or "")
        if path and not Path(path).exists() and there.exists():
            setattr(data, key, str(there))
    return data


def _load_weights(model: nn.Module, trained: TrainedModel, wanted: str) -> str:
    """Load the plain or the averaged weights; return which."""
    which = wanted
    if wanted == "auto":
        which = "ema" if "ema" in trained.weights else "model"
    if which not in trained.weights:
        raise SemabenchError(
            f"{trained.path} has no averaged weights (its recipe has no ema_decay): "
            "use weights=model."
        )
    try:
        model.load_state_dict(trained.weights[which])
    except RuntimeError as error:
        raise SemabenchError(
            f"{trained.path} does not fit {trained.describe['config']['model']['name']}: "
            f"{str(error).splitlines()[1].strip()}"
        ) from error
    return which


def _from_name(config: TargetConfig) -> EvalTarget:
    model_config = config.model
    assert model_config is not None
    if config.data is None:
        raise SemabenchError("nothing to evaluate on: give data=NAME, e.g. data=imagenet.")
    _require_weights(model_config)
    model = build_model(
        model_config.name,
        num_classes=None,
        resolution=config.data.resolution,
        pretrained=model_config.pretrained,
        mixer=model_config.mixer,
        fused_attention=model_config.fused_attention,
        options=model_config.options,
    )
    loaded = None
    if path := model_config.checkpoint:
        loaded = load_checkpoint(model, path, model_config.name, config.weights)
    told: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    count = int(getattr(model, "num_classes", 0))
    names = told.get("label_names") or (imagenet_wnids() if count == IMAGENET_CLASSES else None)
    return EvalTarget(
        model=model,
        fields={
            "model": model_config.name,
            "mixer": mixer_name(model) or "",
            "options": options_label(model_config.options),
            "checkpoint": _weights_digest(model, model_config, loaded),
            "weights": "model" if loaded is None else loaded.which,
            "recipe": _published_recipe(model_config),
        },
        data=config.data,
        classes=None if names is None else list(names),
        num_classes=count,
        mean=tuple(told.get("mean", IMAGENET_DEFAULT_MEAN)),
        std=tuple(told.get("std", IMAGENET_DEFAULT_STD)),
        output_dir=Path(config.output_dir or f"outputs/eval/{model_config.name}"),
    )


def _require_weights(config: ModelConfig) -> None:
    if not (config.pretrained or config.checkpoint):
        raise SemabenchError(
            f"{config.name} has no weights: give model.pretrained=true, "
            "model.checkpoint=PATH of official ones, or checkpoint=RUN of train.py's."
        )
    if config.checkpoint and Path(config.checkpoint).is_dir():
        raise SemabenchError(
            f"model.checkpoint={config.checkpoint} is a directory: a run of train.py's is "
            "evaluated with checkpoint=RUN, without model=..."
        )


def _published_recipe(config: ModelConfig) -> str:
    """Say how weights that were not trained here came about, as far as it is written down."""
    return f"published:{config.published_recipe}" if config.published_recipe else "published"


def _weights_digest(model: nn.Module, config: ModelConfig, loaded: Weights | None) -> str:
    """Hash the file where there is one, otherwise the tensors that timm fetched.

    Of a file with both kinds of weights the kind is in it: earlier rows called either "model".
    """
    if config.checkpoint:
        file = sha256_file(Path(config.checkpoint))
        if loaded is not None and loaded.both:
            file = hashlib.sha256(f"{file} {loaded.which}".encode()).hexdigest()
        return file[:12]
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
