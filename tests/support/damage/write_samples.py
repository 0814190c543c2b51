"""Writes checkpoints by the libraries that people use: `python write_samples.py DIRECTORY`.

For each format three of the same shape: `here` (run 1, step 2), `later` (run 1, step 4), `other` (run 2, step 2).
"""

import os
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402

SAMPLES = {"here": (1, 2), "later": (1, 4), "other": (2, 2)}


def model_of(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 64))


def state_of(seed, step):
    """As a plain loop saves it, after some real steps."""
    model = model_of(seed)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(step):
        optimizer.zero_grad()
        model(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "rng": torch.get_rng_state(),
    }


def write_torch(place, seed, step):
    os.makedirs(place)
    torch.save(state_of(seed, step), os.path.join(place, f"step-{step}.pt"))


def write_torch_without_crc(place, seed, step):
    torch.serialization.set_crc32_options(False)
    try:
        write_torch(place, seed, step)
    finally:
        torch.serialization.set_crc32_options(True)


def write_dcp(place, seed, step):
    path = os.path.join(place, f"step-{step}")
    writer = dcp.FileSystemWriter(path, single_file_per_rank=False, thread_count=2)
    dcp.save(state_of(seed, step), storage_writer=writer, no_dist=True)


def write_safetensors(place, seed, step):
    from safetensors.torch import save_file

    os.makedirs(place)
    flat = {name: tensor.contiguous() for name, tensor in state_of(seed, step)["model"].items()}
    save_file(flat, os.path.join(place, f"step-{step}.safetensors"), metadata={"step": str(step)})


def tiny_gpt(seed):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2))


def write_sharded_safetensors(place, seed, step):
    model = tiny_gpt(seed * 100 + step)
    model.save_pretrained(os.path.join(place, f"step-{step}"), max_shard_size="16KB")


def write_hugging_face(place, seed, step):
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": torch.arange(8) % 64, "labels": torch.arange(8) % 64} for _ in range(16)]
    arguments = TrainingArguments(
        output_dir=place,
        max_steps=step,
        save_steps=step,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        logging_strategy="no",
    )
    Trainer(model=tiny_gpt(seed), args=arguments, train_dataset=rows).train()


def write_lightning(place, seed, step):
    import lightning

    class Tiny(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model_of(seed)

        def training_step(self, batch, index):
            return self.model(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

    trainer = lightning.Trainer(
        max_steps=step,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Tiny(), torch.utils.data.DataLoader(torch.randn(32, 64), batch_size=4))
    os.makedirs(place)
    trainer.save_checkpoint(os.path.join(place, f"step={step}.ckpt"))


WRITERS = {
    "torch": write_torch,
    "torch-without-crc": write_torch_without_crc,
    "lightning": write_lightning,
    "dcp": write_dcp,
    "hugging-face": write_hugging_face,
    "safetensors": write_safetensors,
    "safetensors-sharded": write_sharded_safetensors,
}


def main(directory):
    for name, write in WRITERS.items():
        for sample, (seed, step) in SAMPLES.items():
            place = os.path.join(directory, name, sample)
            write(place, seed, step)
            made = sorted(os.listdir(place))
            assert len(made) == 1, made
            # the same name everywhere: what tells the steps apart must be inside
            target = os.path.join(directory, f"{name}.{sample}")
            shutil.move(os.path.join(place, made[0]), target)
        shutil.rmtree(os.path.join(directory, name))


if __name__ == "__main__":
    import logging

    logging.disable(logging.WARNING)
    main(sys.argv[1])
