"""By what features of a geometry encoder are known: its weights and all settings that they depend on.

A key is a hash of all values. Whether a model is as it was when its key was made is told from sums and settings, which
costs next to nothing at each step.
"""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import xxhash
from transformers import PreTrainedModel

from ..configuration_gap_mllm import GapMllmConfig
from ..geometry_views_gap_mllm import is_sharded
from ..modeling_gap_mllm import GapMllmModel
from ..processing.model_state_gap_mllm import ModelState, settings_of
from .geometry_cache import content_key


_ORIGIN = {"_name_or_path", "architectures", "auto_map", "dtype", "transformers_version"}  # not what is computed
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a value
_ADAPTER_SETTINGS = ("disable_adapters", "active_adapters", "merged_adapters", "scaling")
_COLUMNS, _FACTOR = 1024, 0x9E3779B1  # of the table in which numbers are summed up; a prime between its two sums
_known = WeakKeyDictionary()  # of each encoder its state when its keys were made, and these


@dataclass(frozen=True)
class EncoderMark:
    """Which encoder features are of; they carry it from the process that makes batches to the model.

    Args:
        key (`str`): hash that `encoder_key` gives.
        where (`str`), kept_dtype (`torch.dtype`, *optional*): arguments of `encoder_key`.
        encoder_dtype (`torch.dtype`): dtype of the model's encoder then.
    """

    key: str
    where: str
    kept_dtype: torch.dtype | None
    encoder_dtype: torch.dtype

    @classmethod
    def of(cls, model: GapMllmModel, where: str, kept_dtype: torch.dtype | None) -> "EncoderMark":
        """The mark of a model as it is now; all values are read. Of an encoder that is split, by all processes."""
        _known.pop(model.geometry, None)
        key = _key_of(model, where, kept_dtype)
        return cls(key, where, kept_dtype, model.geometry.dtype)

    def check(self, model: GapMllmModel) -> None:
        """Refuse a model of whose encoder, as it is now, the features are not.

        Raises:
            ValueError: if weights or settings were changed; if the encoder was split over processes meanwhile.
        """
        encoder = model.geometry
        if is_sharded(encoder) and _known.get(encoder, (None, {}))[0] != _SPLIT:
            raise ValueError(
                "The geometry encoder was split over processes after FrozenGeometry was made, so that none can tell "
                f"whether its weights are still the same. {_ADVICE}"
            )
        if encoder.dtype != self.encoder_dtype:
            raise ValueError(
                f"The geometry encoder is {encoder.dtype} now, but was {self.encoder_dtype} when the cache was "
                "opened. Make FrozenGeometry after the encoder is cast, or call its method follow(model) then."
            )
        if _key_of(model, self.where, self.kept_dtype) != self.key:
            raise ValueError(
                "geometry_features are not those of the geometry encoder as it is now: its weights, or settings that "
                f"its features depend on, were changed after FrozenGeometry was made. {_ADVICE}"
            )


_SPLIT = "split"  # the state of an encoder that no process holds whole, which is read where all of them do
_ADVICE = (
    "Call its method follow(model) after the change, or give the Trainer callbacks=[GeometryFollower(collator)], "
    "which does so when training begins and ends. Batches that were made before, and processes of a loader that were "
    "started before (dataloader_persistent_workers), keep the old ones."
)


def encoder_key(encoder: PreTrainedModel, config: GapMllmConfig, where: str, kept_dtype: torch.dtype | None) -> str:
    """Return a hash of all that features depend on beside the views.

    These are the weights and buffers of the encoder with their dtypes, its config, attention and adapters, and what
    becomes of pixels before and of features after.

    Args:
        encoder (`GapMllmVggtModel`): or another of `GEOMETRY_ENCODERS`.
        config (`GapMllmConfig`): config of the model around it.
        where (`str`): "model", or "loader", where a copy in float32 works.
        kept_dtype (`torch.dtype`, *optional*): dtype in which features are kept; by default the encoder's.
    """
    is_copied, tensors = where == "loader", {}
    kernels = sorted({str(getattr(part.config, "_attn_implementation", None)) for part in _with_config(encoder)})
    told = {
        "encoder": _without_origin(encoder.config.to_dict()),
        "attention": ["sdpa" if is_copied and "flash" in kernel else kernel for kernel in kernels],
        "adapters": [[str(getattr(layer, name, None)) for name in _ADAPTER_SETTINGS] for layer in _adapters(encoder)],
        "model": _settings_around(config),
        "dtype": str(kept_dtype or (torch.float32 if is_copied else encoder.dtype)),
    }
    with gathered(encoder):
        for name, tensor in _named_tensors(encoder):
            whole = whole_tensor(tensor)
            tensors[name] = content_key(whole.float() if is_copied and whole.is_floating_point() else whole)
    told = json.dumps([told, sorted(tensors.items())], sort_keys=True, default=str)
    return xxhash.xxh3_64_hexdigest(told.encode())


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, put together of its parts where FSDP2 splits it; all processes must ask then."""
    return tensor.detach().full_tensor() if hasattr(tensor, "full_tensor") else tensor.detach()


def gathered(encoder: PreTrainedModel):
    """A context in which parameters that DeepSpeed's ZeRO-3 splits are whole; all processes must enter it."""
    split = [parameter for parameter in encoder.parameters() if hasattr(parameter, "ds_id")]
    if not split:
        return nullcontext()
    from deepspeed.zero import GatheredParameters  # pyright: ignore[reportMissingImports]

    return GatheredParameters(split)


def _key_of(model, where, kept_dtype):
    """As `encoder_key`, made again only if the model is not as it was."""
    encoder, state = model.geometry, _state(model)
    if _known.get(encoder, (None,))[0] != state:
        _known[encoder] = state, {}
    keys = _known[encoder][1]
    if (where, kept_dtype) not in keys:
        keys[where, kept_dtype] = encoder_key(encoder, model.config, where, kept_dtype)
    return keys[where, kept_dtype]


def _state(model):
    """What tells whether an encoder was changed: its tensors, without their modes, and settings."""
    if is_sharded(model.geometry):
        return _SPLIT
    state = ModelState.of(model.geometry)
    tensors = [tensor for _, tensor in _named_tensors(model.geometry)]
    around = settings_of(_settings_around(model.config))
    return state.tensors, state.settings, state.values, _sums(tensors), around


def _sums(tensors):
    """A sum of the bits of each tensor, so that values which change, or change places, through `.data` are noticed."""
    by_device = {}
    for tensor in tensors:
        if (
            tensor.layout == torch.strided
            and tensor.device.type != "meta"
            and not hasattr(tensor, "__tensor_flatten__")
        ):
            by_device.setdefault(tensor.device, []).append(_weighed_sum(_as_integers(tensor.detach()).flatten()))
    return tuple(tuple(torch.stack(sums).tolist()) for sums in by_device.values())


def _weighed_sum(numbers):
    """Sum of integers in a table, each times the numbers of its row and its column, where overflow is of no matter."""
    whole = len(numbers) // _COLUMNS * _COLUMNS
    table, rest = numbers[:whole].view(-1, _COLUMNS), numbers[whole:]
    by_row, by_column = table.sum(1, dtype=torch.int64), table.sum(0, dtype=torch.int64)
    parts = [by_row * _odd_numbers(by_row), by_column * _odd_numbers(by_column) * _FACTOR]
    parts.append(rest.to(torch.int64) * _odd_numbers(rest))
    return torch.stack([part.sum() for part in parts]).sum()


def _odd_numbers(values):
    return 2 * torch.arange(len(values), device=values.device) + 1


def _as_integers(tensor):
    """The bits of a tensor as integers; eight bytes at a time where that can be, which is faster."""
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    size = tensor.element_size()
    if tensor.is_contiguous() and tensor.nbytes % 8 == tensor.storage_offset() * size % 8 == 0:
        return tensor.flatten().view(torch.int64)
    return tensor.view(_INTEGERS[size])


def _named_tensors(encoder):
    """All parameters and buffers, also buffers that are not saved."""
    yield from encoder.named_parameters()
    yield from encoder.named_buffers()


def _settings_around(config):
    """What a model does to pixels before its encoder sees them, and to features after."""
    vision, fusion = config.vision_config, config.gap_fusion_config
    sizes = [vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size]
    sizes += [config.geometry_config.patch_size, config.geometry_config.model_type]
    statistics = [list(config.image_mean), list(config.image_std)]
    return [*statistics, *sizes, config.reference_frame, fusion.camera_tokens, fusion.position_encoding]


def _without_origin(settings):
    if isinstance(settings, dict):
        return {name: _without_origin(value) for name, value in settings.items() if name not in _ORIGIN}
    return [_without_origin(value) for value in settings] if isinstance(settings, list | tuple) else settings


def _with_config(encoder):
    return [part for part in encoder.modules() if isinstance(part, PreTrainedModel)]


def _adapters(encoder):
    return [
        part for part in encoder.modules() if hasattr(part, "active_adapters") and part not in _with_config(encoder)
    ]
