"""The base class of all GAP-MLLM models: where the encoder's weights come from, and frozen modules in training.

Also the choice of the attention kernel, for a device and for each part of a model.
"""

import torch
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_flash_attn_4_available

from .configuration_gap_mllm import GapMllmConfig
from .geometry_views_gap_mllm import is_trainable
from .known_geometry_gap_mllm import GapMllmGeometryMapsModel
from .publishing_gap_mllm import PublishedModel, WholeModel, needed_from_transformers, stored_weights, with_skip_list


HALF_PRECISION = (torch.float16, torch.bfloat16)  # FlashAttention takes nothing else

# Sub-configs, by which transformers' `attn_implementation={...}` goes, and the modules that they describe.
PARTS = {
    "text_config": "language_model",
    "vision_config": "visual",
    "geometry_config": "geometry",
    "gap_fusion_config": "fusion",
}


def best_attn_implementation(device: str | torch.device, dtype: torch.dtype):
    """Name the fastest attention that can run: FlashAttention 4, 3 or 2 on CUDA in half precision, else SDPA.

    transformers never falls back by itself: a kernel that is not installed is an error there, and one that the GPU is
    too old or too new for fails in the first forward pass.

    Args:
        device (`str` or `torch.device`): where the model will run.
        dtype (`torch.dtype`): dtype of its parameters.
    Returns:
        `str`: for `from_pretrained(..., attn_implementation=...)` or `model.set_attn_implementation`.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import best_attn_implementation
        >>> best_attn_implementation("cpu", torch.float32)
        'sdpa'

        ```
    """
    if torch.device(device).type == "cuda" and torch.cuda.is_available() and dtype in HALF_PRECISION:
        generation = torch.cuda.get_device_capability(device)[0]
        for name, is_available, runs_here in (
            ("flash_attention_4", is_flash_attn_4_available, generation in (9, 10)),  # Hopper, Blackwell
            ("flash_attention_3", is_flash_attn_3_available, generation == 9),  # Hopper
            ("flash_attention_2", is_flash_attn_2_available, generation >= 8),  # Ampere and later
        ):
            if runs_here and is_available():
                return name
    return "sdpa"


def set_attention(
    model: PreTrainedModel,
    attn_implementation: str | dict[str, str] | None = None,
    device: str | torch.device | None = None,
    autocast_dtype: torch.dtype | None = None,
):
    """Give each part of a loaded model the attention that is asked for, or the best where nothing is.

    Args:
        model (`GapMllmModel` or a model around one)
        attn_implementation (`str` or `dict[str, str]`, *optional*): kernel of all parts, or of those that it names by
            `PARTS`; by default `best_attn_implementation` of each.
        device (`str` or `torch.device`, *optional*): where the model will run, by default where it is.
        autocast_dtype (`torch.dtype`, *optional*): dtype of the autocast that it will run under; the geometry encoder
            leaves it.
    Raises:
        ValueError: on an unknown part or kernel, or for FlashAttention on the CPU or in float32.
        ImportError: for a kernel that is not installed.
    """
    modules = {part: getattr(model.base_model, name) for part, name in PARTS.items()}
    modules = {
        part: module
        for part, module in modules.items()
        if module is not None and any(True for _ in module.parameters())
    }
    places = {part: _device_and_dtype(part, module, device, autocast_dtype) for part, module in modules.items()}
    if attn_implementation is None:
        chosen = {part: _best_of(modules[part], *place) for part, place in places.items()}
        if any(name != modules[part].config._attn_implementation for part, name in chosen.items()):
            model.set_attn_implementation({"": chosen["text_config"], **chosen})
        return
    model.config.check_attn_implementation(attn_implementation)
    for part, (where, dtype) in places.items():
        asked = attn_implementation.get(part) if isinstance(attn_implementation, dict) else attn_implementation
        if asked is not None and "flash" in asked and (where.type == "cpu" or dtype not in HALF_PRECISION):
            raise ValueError(
                f"attn_implementation={asked!r} runs in float16 or bfloat16 on a GPU, but {part} would run in {dtype} "
                f"on {where.type}. Give dtype='bfloat16' and a GPU, or another kernel for this part: "
                f"{{{part!r}: 'sdpa', ...}}, of {', '.join(PARTS)}."
            )
    model.set_attn_implementation(attn_implementation)


def _best_of(module, device, dtype):
    """The best attention that a part knows: an encoder of one's own may have none of these."""
    best = best_attn_implementation(device, dtype)
    if "flash" in best and not module._supports_flash_attn:
        best = "sdpa"
    return best if best != "sdpa" or module._supports_sdpa else module.config._attn_implementation


def _device_and_dtype(part, module, device, autocast_dtype):
    """Where a part will compute, and in what."""
    parameter = next(module.parameters())
    dtype = parameter.dtype if autocast_dtype is None or part == "geometry_config" else autocast_dtype
    return torch.device(device or parameter.device), dtype


with needed_from_transformers():
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLPreTrainedModel


def _find_frozen(module, frozen):
    """Collect the largest frozen parts of `module` in `frozen`; returns the values of requires_grad inside it."""
    found = {parameter.requires_grad for parameter in module.parameters(recurse=False)}
    by_child = {child: _find_frozen(child, frozen) for child in module.children()}
    found.update(*by_child.values())
    if found == {True, False}:
        frozen += [child for child, values in by_child.items() if values == {False}]
    return found


class GapMllmPreTrainedModel(PublishedModel, WholeModel, Qwen3VLPreTrainedModel):
    """What all GAP-MLLM models share: where the encoder's weights come from, and frozen modules in training."""

    config: GapMllmConfig
    config_class = GapMllmConfig
    _no_split_modules = ["Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock", "GapMllmFusion"]  # and the encoder's own
    _keep_in_fp32_modules_strict = [  # heads of encoders that have any
        *GapMllmGeometryMapsModel._keep_in_fp32_modules_strict,
        *("geometry.camera_head", "geometry.depth_head"),
    ]
    _modes_of_training = None  # what train() left behind

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in transformers; the encoder's weights come from `geometry_weights` where the checkpoint has none.

        Quantisation leaves `QUANTIZATION_SKIP_MODULES` as they are, unless `quantization_config` has its own list.
        Without `attn_implementation` each part gets the best for where `device_map` puts it and for its dtype.

        Args:
            geometry_weights (`str`, *optional*): folder or repository to read in the place of the one that the
                checkpoint's config names.
            ignore_mismatched_sizes (`bool`, defaults to False): True lets missing weights start at random.
        Raises:
            OSError: if the encoder's weights are not part of the checkpoint and their source cannot be read.
            ValueError: if weights are missing, there or here (they are named), or as
                `GapMllmConfig.check_attn_implementation`.
        """
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = with_skip_list(kwargs["quantization_config"])
        is_chosen = (
            "attn_implementation" in kwargs or getattr(kwargs.get("config"), "_attn_implementation", None) is not None
        )
        loaded = super().from_pretrained(*args, **kwargs)
        if not is_chosen:
            set_attention(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    @classmethod
    def _load_pretrained_model(cls, model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        """As in transformers; the encoder's weights join here, before any is placed, offloaded or quantised."""
        base = model.base_model
        if base.geometry is not None and model.config.geometry_weights is not None:
            prefix = "geometry." if base is model else f"{model.base_model_prefix}.geometry."
            encoder = base.read_geometry_weights(model.config.geometry_weights, load_config.dtype)
            state_dict = dict(state_dict or {}) | {prefix + name: value for name, value in encoder.items()}
            for file in checkpoint_files or ():
                state_dict.update(stored_weights(file))
            model.config.geometry_weights = None  # the model is whole now, and so is what it saves
        return super()._load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs)

    def set_attn_implementation(self, attn_implementation: str | dict[str, str], *args, **kwargs):
        """As in transformers, by the parts of `GapMllmConfig.check_attn_implementation`, which raises for others."""
        self.config.check_attn_implementation(attn_implementation)
        super().set_attn_implementation(attn_implementation, *args, **kwargs)

    def train(self, mode: bool = True):
        """Set training mode; modules without a trainable parameter (a frozen encoder) stay in evaluation mode.

        A frozen layer that gradients pass through (of the language model, say) keeps the flag while activation
        checkpointing is on, since it would not be checkpointed without; the modules in it are in evaluation mode.
        """
        if mode and self._modes_of_training == self._modes():
            return self  # Trainer calls this in every step, and setting all flags anew takes as long as some layers
        super().train(mode)
        if mode:
            frozen = []
            if _find_frozen(self, frozen) == {False}:
                frozen = [self]
            for part in frozen:
                for module in part.modules():  # also those without parameters, such as dropout
                    is_checkpointed = isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
                    module.training = is_checkpointed
            geometry = self.base_model.geometry
            if geometry is not None and not is_trainable(geometry):
                geometry.eval()  # no gradient passes through
            self._modes_of_training = self._modes()
        return self

    def _modes(self):
        """All that train() looks at and sets."""
        modes = [(each.training, getattr(each, "gradient_checkpointing", False)) for each in self.modules()]
        return modes, [parameter.requires_grad for parameter in self.parameters()]
