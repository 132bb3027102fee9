"""A vision-language model on this machine: any `image-text-to-text` model of transformers."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig
from transformers.utils import find_adapter_config_file, is_bitsandbytes_available, is_peft_available

from ..schema.training_record import TRAINING_FILE, TrainingFacts
from ..utils.files import check_model_name, fingerprint, resolve_revision
from ..utils.hub_access import why_not_loaded
from ..utils.memory import free_unused, is_out_of_memory
from .answers import shorten
from .base import DEFAULT_VLM, GeneratingVLM, VLMReply, VLMRequest, VLMUnavailable
from .conventions import CONVENTIONS, convention_for, pixel_bounds


logger = logging.getLogger(__name__)

# Configurations, the processor, and safetensors weights (no pickles).
_ADAPTER_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "adapter_model.safetensors"]

Quantization = Literal["4bit", "8bit"]


class LocalVLM(GeneratingVLM):
    """
    A model loaded with transformers. It decodes greedily, in batches, so that the same question gets the same answer.

    Args:
        model (`str`): A folder, or the id of a repository on the Hub. It may hold a PEFT adapter and a processor; the
            adapter's base model is then loaded too, from where the adapter's configuration says.
        revision (`str`, *optional*): Branch, tag or commit of a Hub repository.
        device (`str`, *optional*): Defaults to CUDA if available. `"auto"` spreads the model over all devices.
        dtype (`torch.dtype`, *optional*): Defaults to bfloat16, on a CPU to float32.
        quantization (`str`, *optional*): `"4bit"` or `"8bit"`, with bitsandbytes.
        batch_size (`int`, *optional*, defaults to 4): Maximum number of questions at once. It is reduced if memory
            runs out.

    Raises:
        VLMUnavailable: The model does not exist, cannot be reached, lacks weights, or takes no images.
        ImportError: bitsandbytes or, for an adapter, PEFT is needed but not installed.
    """

    def __init__(
        self,
        model: str = DEFAULT_VLM,
        revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        quantization: Quantization | None = None,
        batch_size: int = 4,
    ) -> None:
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
        options: dict[str, Any] = {"dtype": dtype, "device_map": device}
        if quantization:
            options["quantization_config"] = _quantization(quantization, dtype)
        try:
            self._files = files = _find_files(model, revision)
            self._recorded_coordinates = recorded_coordinates(training_record(files.processor, files.revision))
            self.processor = AutoProcessor.from_pretrained(files.processor, revision=files.revision)
            options |= {"revision": files.revision, "use_safetensors": True, "output_loading_info": True}
            network, loaded = AutoModelForImageTextToText.from_pretrained(files.network, **options)
            missing = set(loaded["missing_keys"])
            if files.adapter:
                missing |= network.load_adapter(files.adapter).missing_keys
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise VLMUnavailable(
                "model must be a folder or a Hub repository of an image-text-to-text model with safetensors, "
                f"got {model!r}: {why_not_loaded(error)}. What was finished is kept; correct the name or mend the "
                "cause, and run the same command again"
            ) from error
        # transformers would only warn, and go on with random weights.
        if missing:
            raise VLMUnavailable(
                f"{model!r} lacks weights, {shorten(', '.join(sorted(missing)))}: download it again. What "
                "was finished is kept"
            )
        if not self.processor.chat_template:
            raise VLMUnavailable(f"{model!r} has no chat template: choose a model tuned for instructions")
        self.network = network.eval()
        # Answers begin where questions end, so all questions of a batch must end at the same position.
        self.processor.tokenizer.padding_side = "left"
        self.batch_size, self.quantization = batch_size, quantization
        super().__init__(model, files.recorded)

    @property
    def coordinates(self) -> str:
        """
        Return the name of the convention that the model was trained to write boxes in: by its training record
        (`training.json`) if there is one, else by its architecture or its name; `"normalized"` for unknown families.
        """
        return self._recorded_coordinates or convention_for(self.network.config.model_type, self.model)

    @property
    def pixel_bounds(self) -> tuple[int, int]:
        return pixel_bounds(self.processor.image_processor)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        # bitsandbytes' weights and those that `device="auto"` has spread stay where they are.
        spread = len(set(getattr(self.network, "hf_device_map", {}).values())) > 1
        return () if self.quantization or spread else (self.network,)

    def identity(self) -> dict[str, Any]:
        identity = super().identity() | {"dtype": str(self.network.dtype), "quantization": self.quantization}
        if self._files.adapter:
            identity |= {"base_model": self._files.network, "base_revision": self._files.recorded_network}
        return identity

    def _generate(self, requests: Sequence[VLMRequest]) -> list[VLMReply]:
        replies: list[VLMReply] = []
        size, waiting = self.batch_size, list(requests)
        while waiting:
            batch = waiting[:size]
            try:
                replies += [VLMReply(text) for text in self._generate_batch(batch)]
                waiting = waiting[len(batch) :]
                continue
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
            # Out here, because the error holds on to what did not fit.
            size = (len(batch) + 1) // 2
            logger.warning("vlm: out of memory with %d questions, going on with %d", len(batch), size)
            free_unused()
        return replies

    @torch.inference_mode()
    def first_logits(self, requests: Sequence[VLMRequest]) -> torch.Tensor:
        """
        Compute the logits of the first token of each answer, of batches of `batch_size` questions.

        Args:
            requests (`Sequence[VLMRequest]`): The questions.

        Returns:
            `torch.Tensor` of shape `(requests, vocabulary)`, `float32`, on the CPU.
        """
        self.usage.add(requests=len(requests))
        found = []
        for first in range(0, len(requests), self.batch_size):
            inputs = self._inputs(requests[first : first + self.batch_size])
            self.usage.add(prompt_tokens=int(inputs["attention_mask"].sum()))
            output = self.network.generate(
                **inputs, do_sample=False, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
            )
            found.append(output.logits[0].float().cpu())
        return torch.cat(found)

    def _inputs(self, requests: Sequence[VLMRequest]) -> Any:
        """Return what the network is given for a batch of questions, padded on the left."""
        texts = self.processor.apply_chat_template(
            [_conversation(request) for request in requests], add_generation_prompt=True, tokenize=False
        )
        images = [list(request.images) for request in requests]
        inputs = self.processor(images=images, text=texts, padding=True, return_tensors="pt")
        return inputs.to(self.network.device, dtype=self.network.dtype)

    @torch.inference_mode()
    def _generate_batch(self, requests: Sequence[VLMRequest]) -> list[str]:
        inputs = self._inputs(requests)
        length = inputs["input_ids"].shape[1]
        output = self.network.generate(
            **inputs, do_sample=False, max_new_tokens=max(request.max_new_tokens for request in requests)
        )[:, length:]
        # Each answer is cut where it would have ended alone, so that it does not depend on the batch.
        answers = [tokens[: request.max_new_tokens] for tokens, request in zip(output, requests, strict=True)]
        self.usage.add(
            prompt_tokens=int(inputs["attention_mask"].sum()),
            completion_tokens=sum(int((a != self.processor.tokenizer.pad_token_id).sum()) for a in answers),
        )
        return self.processor.batch_decode(answers, skip_special_tokens=True)


@dataclass(frozen=True)
class _Files:
    """
    Locations of a model's parts.

    Attributes:
        processor (`str`), adapter (`str`, *optional*), network (`str`): Folders, or ids of repositories. The network
            is the model itself or the adapter's base model.
        revision (`str`, *optional*): Revision of the network's repository, and of the processor's if it is the same.
        recorded, recorded_network (`str`): Revisions to record, of the model and of the network.
    """

    processor: str
    network: str
    revision: str | None
    recorded: str
    recorded_network: str
    adapter: str | None = None


def _find_files(model: str, revision: str | None) -> _Files:
    check_model_name(model)
    config = find_adapter_config_file(model, revision=revision)
    # Some models hold an adapter beside their own weights; transformers loads it by itself.
    if config is None or Path(config).with_name("config.json").exists():
        revision, recorded = resolve_revision(model, revision)
        return _Files(model, model, revision, recorded, recorded)
    # transformers loads adapters too, but takes the base at the adapter's revision and reports no missing weights.
    if not is_peft_available():
        raise ImportError(f"{model!r} is an adapter, which needs PEFT; run `pip install artiagent[train]`")
    if Path(model).is_dir():
        folder, recorded = Path(model), fingerprint(Path(model))
    else:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=_ADAPTER_FILES))
        recorded = folder.name
    if not (folder / "adapter_model.safetensors").is_file():
        raise OSError("there is no adapter_model.safetensors beside its adapter_config.json")
    settings = json.loads(Path(config).read_text(encoding="utf-8"))
    base = settings["base_model_name_or_path"]
    revision, recorded_base = resolve_revision(base, settings.get("revision"))
    return _Files(str(folder), base, revision, recorded, recorded_base, str(folder))


def training_record(model: str, revision: str | None) -> TrainingFacts:
    """
    Read the record of a model's training (`training.json`). A model without a record, or one that is out of reach,
    yields no facts.

    Args:
        model (`str`): A folder, or an id on the Hub.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.

    Raises:
        OSError: The Hub answers with an error.
        ValueError: The record is not JSON.
    """
    folder = Path(model)
    try:
        found = hf_hub_download(model, TRAINING_FILE, revision=revision) if not folder.is_dir() else None
        record = json.loads(Path(found or folder / TRAINING_FILE).read_text(encoding="utf-8"))
    except LocalEntryNotFoundError:
        logger.warning("%s: its training record, which may tell how it writes boxes, cannot be read offline", model)
        return TrainingFacts()
    except (EntryNotFoundError, FileNotFoundError):  # most models have none
        return TrainingFacts()
    # Other programs may write a file of that name, too.
    return TrainingFacts.from_content(record)


def recorded_coordinates(record: TrainingFacts) -> str | None:
    """Return the box convention by the record of a model's training; `None` if the record does not tell."""
    return record.coordinates if record.coordinates in CONVENTIONS else None


def _conversation(request: VLMRequest) -> list[dict[str, Any]]:
    images = [{"type": "image", "image": image} for image in request.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": request.prompt}]}]


def _quantization(bits: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    if not is_bitsandbytes_available():
        raise ImportError("quantization needs bitsandbytes; run `pip install artiagent[quantization]`")
    if bits == "4bit":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)
    return BitsAndBytesConfig(load_in_8bit=True)
