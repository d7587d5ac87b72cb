"""The data module: what each process of a machine gets of its cores and of its batches."""

from types import SimpleNamespace

import pytest
import torch

from semabench.config.schema import DataConfig
from semabench.data import datamodule as module
from semabench.data.datamodule import ImageDataModule


@pytest.fixture
def data(dataset):
    config = DataConfig(
        name="d", packed=str(dataset.packed), source=str(dataset.source), loader="folder",
        resolution=48,
    )  # fmt: skip
    return ImageDataModule(config, batch_size=12, seed=3)


STEP = {"SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "12"}


@pytest.mark.parametrize(
    ("environment", "may_use", "workers"),
    [
        ({}, 12, 12),
        ({"LOCAL_WORLD_SIZE": "1"}, 12, 12),
        ({"LOCAL_WORLD_SIZE": "5"}, 12, 2),
        ({"LOCAL_WORLD_SIZE": "24"}, 12, 1),
        ({"SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_ON_NODE": "12"}, 12, 12),  # not of a step
        (STEP, 12, 12),
        (STEP | {"SLURM_NTASKS_PER_NODE": "4"}, 12, 3),
        (STEP | {"SLURM_NTASKS_PER_NODE": "4"}, 3, 3),  # bound to its share
        (STEP | {"SLURM_NTASKS_PER_NODE": "24"}, 12, 1),
    ],
)
def test_processes_of_a_machine_share_its_cores(data, monkeypatch, environment, may_use, workers):
    monkeypatch.setattr(module, "worker_count", lambda told: told or may_use)
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", *STEP):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (data._workers() or may_use) == workers
    data.config.num_workers = 7  # as told
    assert data._workers() == 7


def test_each_process_loads_its_own_share(data):
    data.config.num_workers = 1
    labels = {"train": [], "val": []}
    for rank in range(3):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=3)
        train, val = data.train_dataloader(), data.val_dataloader()
        assert (train.batch_size, val.batch_size, len(train)) == (4, 4, data.steps_per_epoch)
        labels["train"].append([samples.keys for _, _, samples in train])
        labels["val"] += [found[found >= 0] for _, found in val]
    for ranks in zip(*labels["train"], strict=True):
        assert len({int(key) for keys in ranks for key in keys}) == 12
    assert torch.cat(labels["val"]).bincount().tolist() == [7, 7, 7]  # each image once
