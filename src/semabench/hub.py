"""Put a trained run where others load it: the layout of the Hugging Face Hub, as timm has it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from timm.models import save_for_hf

from semabench.errors import SemabenchError, first_line
from semabench.evaluation.schema import TargetConfig
from semabench.evaluation.target import EvalTarget, from_run
from semabench.files import atomic_write
from semabench.measures import measures
from semabench.results.record import software_versions
from semabench.results.report import write_report


def push(
    run: Path, repository: str, to: Path | None = None, weights: str = "auto", private: bool = False
) -> str:
    """Upload a run's model as OWNER/NAME, or write it to a folder; return how to load it.

    model.safetensors, config.json (classes, normalisation and size, by which
    ``timm.create_model`` builds the model again), a model card of the run's recipe, versions,
    tables and figures, and the rows. No path of this machine is in them.

    Args:
        run: directory of a run, or a checkpoint.
        repository: OWNER/NAME.
        to: write the folder there, and upload nothing.
        weights: ``model``, ``ema``, or ``auto``: the averaged ones where there are any.
        private: create the repository so.

    Raises:
        SemabenchError: no such run or weights, a name without its owner, a folder that is not
            empty or cannot be written, or no way to the Hub.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise SemabenchError(f"'{repository}' is not OWNER/NAME of a repository of the Hub.")
    target = from_run(TargetConfig(checkpoint=str(run), weights=weights))
    if ":" in target.fields["model"]:
        raise SemabenchError(
            f"{target.fields['model']} is not a name of timm's or ours: a model that is fine-tuned "
            "from a repository or folder is pushed by timm.models.push_to_hf_hub."
        )
    if to is not None and to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SemabenchError(f"{to} is not empty: name a folder that does not exist.")
    try:
        place = None if to is None else to.absolute().parent
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as made:
            folder = Path(made) / "model"
            folder.mkdir()
            try:
                _write(target, repository, folder)
            except (RuntimeError, TypeError, ValueError) as error:  # of timm and safetensors
                raise SemabenchError(
                    f"{run} has no form for the Hub: {first_line(error)}"
                ) from error
            if to is not None:
                folder.replace(to)
                return f'timm.create_model("local-dir:{to}", pretrained=True)'
            _upload(repository, folder, private)
    except OSError as error:
        where = error.filename or to or tempfile.gettempdir()
        raise SemabenchError(f"cannot write {where}: {error.strerror or error}.") from error
    return f'timm.create_model("hf-hub:{repository}", pretrained=True)'


def _write(target: EvalTarget, repository: str, folder: Path) -> None:
    told = target.train_config
    pixels, data = told["data"]["resolution"], told["data"]
    save_for_hf(
        target.model,
        str(folder),
        model_config={"label_names": target.classes},
        data_config={
            "input_size": (3, pixels, pixels),
            "mean": target.mean,
            "std": target.std,
            "crop_pct": data.get("crop_pct", 1.0),
            "interpolation": data.get("interpolation", "bicubic"),
        },
        safe_serialization=True,
    )
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"].pop("license", None)  # timm's word on the code; the owner says it
    config["semabench"] = {"run": target.fields["run"], "config": _public(told)}
    atomic_write(folder / "config.json", json.dumps(config, indent=2) + "\n")
    card = [_CARD.format(repository=repository, name=repository.split("/")[1], **target.fields)]
    card += [f"Made with {software_versions()}.\n"]
    if target.run_dir and (target.run_dir / "results.jsonl").exists():
        write_report([target.run_dir], folder, [m.view for m in measures().values()])
        card += [(folder / "report.md").read_text().replace("# Results\n", "", 1)]
        (folder / "report.md").unlink()
    atomic_write(folder / "README.md", "\n".join(card))


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """Return a training config without what tells of its machine: paths, and the logger."""
    kept = {name: dict(config[name]) for name in ("model", "data", "recipe")}
    kept["model"]["checkpoint"] = None
    for name in ("packed", "source"):
        kept["data"][name] = None
    return kept | {"seed": config["seed"], "precision": config["trainer"]["precision"]}


_CARD = """---
library_name: timm
pipeline_tag: image-classification
tags: [image-classification, timm, semabench]
---
# {name}

`{model}` (token mixer: {mixer}), trained by semabench with the recipe `{recipe}`: {epochs} epochs
at {train_resolution} px, seed {seed}; its {weights} weights. config.json holds the whole config.

```python
import semabench, timm
model = timm.create_model("hf-hub:{repository}", pretrained=True)
```
"""


def _upload(repository: str, folder: Path, private: bool) -> None:
    from huggingface_hub import HfApi

    api: Any = HfApi(library_name="semabench")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise ValueError("it is public already")
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add model")
    except Exception as error:  # of the hub, of whichever HTTP library it uses, of the system
        raise SemabenchError(
            f"cannot upload to {repository} ({first_line(error)[:200]}): log in with `hf auth "
            "login`, or write a folder with --to FOLDER."
        ) from error
