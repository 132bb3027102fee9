"""The mean teacher: a moving average of a network's weights, which is steadier, and makes the next pseudo labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import replacing


_FILE = "teacher.safetensors"


class Teacher(TrainerCallback):
    """
    Callback that averages the weights after each step, and keeps the average with every checkpoint. Running statistics
    of normalizations are the network's own.

    Args:
        network (`PreTrainedModel`): Network that is trained.
        decay (`float`): Weight of the average so far, in (0, 1).
    """

    def __init__(self, network: PreTrainedModel, decay: float) -> None:
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @property
    def network(self) -> PreTrainedModel:
        """Return the network with averaged weights."""
        module: PreTrainedModel = self.average.module
        return module

    def resume(self, checkpoint: Path) -> None:
        """
        Load the average of a checkpoint.

        Raises:
            UserError: It has none, because the process was killed before it was written.
        """
        if not (checkpoint / _FILE).is_file():
            raise UserError(
                f"--output_dir must hold checkpoints with {_FILE}, got '{checkpoint}' without it; remove it to "
                "continue from the one before"
            )
        self.average.load_state_dict(load_file(checkpoint / _FILE))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.average.update_parameters(kwargs["model"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            path = Path(args.output_dir or "", f"checkpoint-{state.global_step}", _FILE)
            # Memory formats other than the default cannot be stored.
            tensors = {name: value.contiguous() for name, value in self.average.state_dict().items()}
            with replacing(path) as temporary:
                save_file(tensors, temporary)
