"""Trains a small BERT to read scikit-learn's digits, pixel by pixel, with the Trainer of transformers: interrupted
anywhere, it ends in the same state."""

from __future__ import annotations

import argparse
import os
import time

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

import sweeprun_trainer as sweeprun
from sweeprun_trainer.transformers import SweepRunCallback


class Digits(Dataset):
    """Images of 64 pixels, each of which is one of 17 words."""

    def __init__(self, begin: int, end: int, *, step_seconds: float = 0.0, batch_size: int = 1) -> None:
        digits = load_digits()
        self._inputs = torch.tensor(digits.data[begin:end], dtype=torch.long)
        self._labels = torch.tensor(digits.target[begin:end])
        self._pause = step_seconds / batch_size

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        time.sleep(self._pause)
        return {"input_ids": self._inputs[index], "labels": self._labels[index]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--checkpoint-every", type=int, default=20)
    parser.add_argument("--step-seconds", type=float, default=0.0)
    options = parser.parse_args()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os.environ.setdefault("LOCAL_RANK", "0")  # one process in each pod of the PyTorchJob; torchrun says it itself
    batch_size = 32
    arguments = TrainingArguments(
        output_dir=sweeprun.checkpoint_directory(),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-3,
        save_steps=options.checkpoint_every,
        logging_steps=options.checkpoint_every,
        eval_strategy="epoch",
        use_cpu=not torch.cuda.is_available(),
        ddp_backend=None if torch.cuda.is_available() else "gloo",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        seed=17,
    )
    set_seed(17)  # Trainer does it too, after the model's first weights were drawn
    config = BertConfig(
        vocab_size=17, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=10
    )
    trainer = Trainer(
        model=BertForSequenceClassification(config),
        args=arguments,
        train_dataset=Digits(0, 1600, step_seconds=options.step_seconds, batch_size=batch_size),
        eval_dataset=Digits(1600, 1797),
        callbacks=[SweepRunCallback()],
    )
    trainer.train(resume_from_checkpoint=sweeprun.resume_path())


if __name__ == "__main__":
    main()
