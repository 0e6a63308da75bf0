"""The base class of all GAP-MLLM models: where the encoder's weights come from, and frozen modules in training."""

from .attention_gap_mllm import set_attention
from .compatibility_gap_mllm import needed_from_transformers
from .configuration_gap_mllm import GapMllmConfig
from .geometry_maps_gap_mllm import GapMllmGeometryMapsModel
from .geometry_views_gap_mllm import is_trainable
from .publishing_gap_mllm import PublishedModel
from .weights_gap_mllm import WholeModel, stored_weights, with_skip_list


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


__all__ = ["GapMllmPreTrainedModel"]
