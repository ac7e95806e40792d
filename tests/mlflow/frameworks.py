"""Train something tiny with a framework, and let two objects log the same training: stock DVCLive's and the project's.

    cd <generated project>; PYTHONPATH=. python <this file> lightning|hugging_face|keras <folder to write to>

Both use the framework's own callback and get the same figures, so that what they write can be compared.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dvclive
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

RECORDS, FEATURES = 24, 3


class Sums(Dataset[dict[str, torch.Tensor]]):
    """Records whose label is the sum of their features."""

    def __init__(self) -> None:
        """Make up the features, the same every time."""
        self.x = torch.rand((RECORDS, FEATURES), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        """Return the number of records."""
        return RECORDS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return one record."""
        return {"x": self.x[index], "labels": self.x[index].sum(dim=0, keepdim=True)}


def train_lightning(lives: list[dvclive.Live], folder: Path) -> None:
    """Fit with validation, and test afterwards: by then Lightning has told the loggers that all is over."""
    import pytorch_lightning as lightning
    from dvclive.lightning import DVCLiveLogger

    class Regression(lightning.LightningModule):
        """A linear layer."""

        def __init__(self, learning_rate: float) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer, self.learning_rate = nn.Linear(FEATURES, 1), learning_rate

        def _loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return nn.functional.mse_loss(self.layer(batch["x"]), batch["labels"])

        def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
            loss = self._loss(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            self.log("batch", float(number))
            return loss

        def validation_step(self, batch: dict[str, torch.Tensor], number: int) -> None:
            self.log("val_loss", self._loss(batch))

        def test_step(self, batch: dict[str, torch.Tensor], number: int) -> None:
            self.log("test_loss", self._loss(batch))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=self.learning_rate)

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=3,
        log_every_n_steps=2,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=[DVCLiveLogger(experiment=live) for live in lives],
    )
    model, batches = Regression(0.1), DataLoader(Sums(), batch_size=4)
    trainer.fit(model, batches, batches)
    trainer.test(model, batches, verbose=False)


def train_hugging_face(lives: list[dvclive.Live], folder: Path) -> None:
    """Train with an evaluation after every second step."""
    from transformers import Trainer, TrainingArguments
    from transformers.integrations import DVCLiveCallback

    class Regression(nn.Module):
        """A linear layer that gives its own loss, as the trainer wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(FEATURES, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.layer(x)
            return {"loss": nn.functional.mse_loss(logits, labels), "logits": logits}

    arguments = TrainingArguments(
        output_dir=str(folder / "hugging_face"),
        num_train_epochs=2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    callbacks: list[Any] = [DVCLiveCallback(live=live) for live in lives]
    Trainer(Regression(), arguments, train_dataset=Sums(), eval_dataset=Sums(), callbacks=callbacks).train()


def train_keras(lives: list[dvclive.Live], folder: Path) -> None:
    """Fit with validation, on PyTorch.

    DVCLive's callback takes Keras from TensorFlow, half a gigabyte for another name of the same: `tensorflow.keras` is
    the package `keras`. Here the name alone stands for it.
    """
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    tensorflow = ModuleType("tensorflow")
    vars(tensorflow)["keras"] = keras
    sys.modules["tensorflow"] = tensorflow
    from dvclive.keras import DVCLiveCallback

    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
    x = Sums().x.numpy()
    callbacks = [DVCLiveCallback(live=live) for live in lives]
    model.fit(x, x.sum(axis=1), epochs=4, batch_size=8, validation_split=0.25, verbose=0, callbacks=callbacks)


TRAIN = {"lightning": train_lightning, "hugging_face": train_hugging_face, "keras": train_keras}


def main(framework: str, folder: Path) -> None:
    """Train once; write DVCLive's files to `stock` and the project's to `ours`."""
    live = importlib.import_module("mlops.tracking.live").Live
    assert live is not dvclive.Live
    torch.manual_seed(0)
    lives = [
        made(str(folder / name), save_dvc_exp=False, dvcyaml=False)
        for made, name in ((dvclive.Live, "stock"), (live, "ours"))
    ]
    TRAIN[framework](lives, folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
