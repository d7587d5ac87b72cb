"""Run the official MILA and VMamba code on small models; store what it computes.

    python tests/golden/make.py MLLA_CHECKOUT VMAMBA_CHECKOUT tests/golden

Checkouts of LeapLabTHU/MLLA@66b6d29 and MzeroMiko/VMamba@2ed52ea, which wants einops. CPU, float32,
one thread.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

MILA = {
    "img_size": 64, "patch_size": 4, "in_chans": 3, "num_classes": 10, "embed_dim": 8,
    "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "mlp_ratio": 4.0, "qkv_bias": True,
    "drop_rate": 0.0, "drop_path_rate": 0.2, "ape": False, "use_checkpoint": False,
}  # fmt: skip
VMAMBA = {
    "patch_size": 4, "in_chans": 3, "num_classes": 10, "depths": [1, 1, 2, 1], "dims": 8,
    "ssm_d_state": 1, "ssm_dt_rank": "auto", "ssm_act_layer": "silu", "ssm_conv": 3,
    "ssm_conv_bias": False, "ssm_drop_rate": 0.0, "ssm_init": "v0", "forward_type": "v05_noz",
    "mlp_ratio": 4.0, "mlp_act_layer": "gelu", "mlp_drop_rate": 0.0, "gmlp": False,
    "drop_path_rate": 0.2, "patch_norm": True, "norm_layer": "ln2d", "downsample_version": "v3",
    "patchembed_version": "v2", "use_checkpoint": False, "posembed": False, "imgsize": 64,
}  # fmt: skip
BLOCKS = [f"layers.{i}" for i in range(4)] + [
    f"layers.{i}.blocks.{j}" for i, j in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))
]
SEEN = {
    "mlla": ["patch_embed", "norm", "layers.0.blocks.0.attn", *BLOCKS],
    "vmamba": ["patch_embed", "classifier.norm", "layers.0.blocks.0.op", *BLOCKS],
}
GRADIENTS = {
    "mlla": [
        "patch_embed.conv1.conv.weight",
        "layers.1.blocks.0.attn.qk.weight",
        "layers.2.blocks.1.attn.lepe.weight",
    ],
    "vmamba": [
        "patch_embed.0.weight",
        "layers.1.blocks.0.op.A_logs",
        "layers.2.blocks.1.op.x_proj_weight",
    ],
}


def randomise(model: nn.Module, seed: int) -> None:
    """Give every weight and statistic a value that nothing is blind to."""
    g = torch.Generator().manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        with torch.no_grad():
            if name.endswith("num_batches_tracked"):
                value.fill_(1000)
            elif "rotations" in name:
                continue  # a table, not a weight
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=g)
            elif name.endswith(("running_mean", "A_logs")):
                value.normal_(0, 0.3, generator=g)
            elif name.endswith("Ds"):
                value.normal_(1, 0.3, generator=g)
            elif name.endswith("dt_projs_bias"):
                step = torch.empty_like(value).uniform_(math.log(0.01), math.log(0.5), generator=g)
                value.copy_(step.exp().expm1().log())
            elif value.ndim == 1 and name.endswith("weight"):
                value.uniform_(0.6, 1.4, generator=g)
            elif value.ndim == 1:
                value.normal_(0, 0.2, generator=g)
            else:
                value.normal_(0, value[0].numel() ** -0.5, generator=g)


def run(
    family: str, model: nn.Module, config: dict[str, Any], size: tuple[int, int], seed: int
) -> dict[str, Tensor]:
    """Return input, output, activations and gradients of ``sum(y**2)``."""
    found: dict[str, Tensor] = {}
    for name in SEEN[family]:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found.__setitem__(
                f"act/{name}", output.detach().clone()
            )
        )
    head = model.head if family == "mlla" else model.classifier.head
    head.register_forward_pre_hook(
        lambda _module, inputs: found.__setitem__("act/pooled", inputs[0].detach().clone())
    )
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    y = model.eval()(x)
    y.square().sum().backward()
    parameters = dict(model.named_parameters())
    grads = {f"grad/{key}": parameters[key].grad for key in GRADIENTS[family]}
    return found | {"x": x.detach(), "y": y.detach(), "grad/x": x.grad} | grads


def store(path: Path, tensors: dict[str, Tensor], config: dict[str, Any], **told: str) -> None:
    """Write a file with its config in the header."""
    header = {"config": json.dumps(config), "torch": torch.__version__, **told}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, path, metadata=header)


def make_mila(checkout: Path, out: Path) -> None:
    """MILA at 64 px, and the same weights at 96 px, whose tables of rotations differ."""
    sys.path.insert(0, str(checkout))
    official = importlib.import_module("models.mlla").MLLA
    model = official(**MILA)
    randomise(model, 101)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    store(out / "tiny_64.safetensors", weights | run("mlla", model, MILA, (64, 64), 201), MILA)
    config = MILA | {"img_size": 96}
    large = official(**config)
    tables = {k: v for k, v in large.state_dict().items() if "rotations" in k}
    large.load_state_dict(weights | tables)
    found = run("mlla", large, config, (96, 96), 202)
    store(out / "tiny_96.safetensors", tables | found, config, weights_from="mlla/tiny_64")


def make_vmamba(checkout: Path, out: Path) -> None:
    """VMamba with ssm_ratio 1, at 64 px and on an odd, oblong grid, and with ssm_ratio 2."""
    counting = types.ModuleType("fvcore.nn")
    names = ("FlopCountAnalysis", "flop_count_str", "flop_count", "parameter_count")
    for name in names:
        setattr(counting, name, None)
    sys.modules |= {"fvcore": types.ModuleType("fvcore"), "fvcore.nn": counting}
    torch.cuda.device = lambda _: contextlib.nullcontext()  # type: ignore[assignment, misc]
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout / "classification" / "models"))
    official = importlib.import_module("vmamba").VSSM
    for ratio, seed, sizes in (
        (1.0, 111, {"64": (64, 64), "72x56": (72, 56)}),
        (2.0, 112, {"64": (64, 64)}),
    ):
        config = VMAMBA | {"ssm_ratio": ratio}
        for number, (label, size) in enumerate(sizes.items()):
            model = official(**config)
            randomise(model, seed)
            weights = {} if number else {k: v.clone() for k, v in model.state_dict().items()}
            found = run("vmamba", model, config, size, 211 + number)
            store(out / f"tiny_s{ratio:g}_{label}.safetensors", weights | found, config)


if __name__ == "__main__":
    torch.set_num_threads(1)
    mila, vmamba, folder = map(Path, sys.argv[1:])
    make_mila(mila, folder / "mlla")
    make_vmamba(vmamba, folder / "vmamba")
