"""Trains a small network on scikit-learn's digits with Lightning: interrupted anywhere, it ends in the same state."""

from __future__ import annotations

import argparse
import os
import time

import lightning
import torch
from lightning.pytorch.plugins.environments import KubeflowEnvironment
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import sweeprun_trainer as sweeprun
from sweeprun_trainer.lightning import SweepRunCallback


class Noisy(Dataset):
    """Draws from the process's random generator for every sample, as augmentation does."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self._inputs, self._labels = inputs, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._inputs[index] + 0.1 * torch.randn(64), self._labels[index]


class Digits(lightning.LightningModule):
    def __init__(self, *, lr: float, step_seconds: float) -> None:
        super().__init__()
        self._lr, self._step_seconds = lr, step_seconds
        self.network = nn.Sequential(
            nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
        )

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        time.sleep(self._step_seconds)
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.network(inputs), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        inputs, labels = batch
        found = self.network(inputs).argmax(dim=1)
        self.log("accuracy", (found == labels).float().mean(), sync_dist=True)

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self._lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loaders() -> tuple[StatefulDataLoader, DataLoader]:
    digits = load_digits()
    inputs, labels = torch.tensor(digits.data / 16.0, dtype=torch.float32), torch.tensor(digits.target)
    data = Noisy(inputs[:1600], labels[:1600])
    # an order by seed and epoch: the sampler that Lightning puts around a shuffling StatefulDataLoader draws it anew
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    sampler = StatefulDistributedSampler(data, num_replicas=world, rank=rank, seed=17)
    train = StatefulDataLoader(data, batch_size=32, sampler=sampler)
    return train, DataLoader(TensorDataset(inputs[1600:], labels[1600:]), batch_size=64)


def processes() -> dict[str, object]:
    """One process for each pod of the PyTorchJob, or this one alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return {"num_nodes": world, "strategy": "ddp", "plugins": [KubeflowEnvironment()]} if world > 1 else {}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--checkpoint-every", type=int, default=20)
    parser.add_argument("--step-seconds", type=float, default=0.0)
    options = parser.parse_args()
    lightning.seed_everything(17)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="auto",
        devices=1,
        callbacks=[SweepRunCallback(every_steps=options.checkpoint_every)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **processes(),
    )
    train, validation = loaders()
    model = Digits(lr=0.005, step_seconds=options.step_seconds)
    trainer.fit(model, train, validation, ckpt_path=sweeprun.resume_path())


if __name__ == "__main__":
    main()
