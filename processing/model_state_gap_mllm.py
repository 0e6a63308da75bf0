"""What the answers of a model and the inputs of a processor depend on, compared from question to question.

A change in place through `.data` (EMA, averaging, DeepSpeed) leaves no trace but the values, so some of them are read.

Also where the inputs of a model go when its weights are offloaded, and one lock for each model: generate() leaves
state on it (positions of the last scene), so calls must not overlap.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import FunctionType, MethodType

import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin


def input_device(model: nn.Module) -> torch.device:
    """Return the device that a model takes its inputs on.

    Offloaded weights lie on "meta" between calls: hooks of accelerate then say where they are computed with.

    Args:
        model (`torch.nn.Module`): model, perhaps with `device_map`, `cpu_offload` or `disk_offload`.
    Returns:
        `torch.device`: that of the hooks, else of the first parameter or buffer that is not on "meta", else the CPU.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.processing.model_state_gap_mllm import input_device
        >>> input_device(torch.nn.Linear(4, 2))
        device(type='cpu')

        ```
    """
    held = (tensor.device for tensor in chain(model.parameters(), model.buffers()))
    devices = chain(_execution_devices(model), held, [torch.device("cpu")])
    return next(device for device in devices if device.type != "meta")


def _execution_devices(model) -> Iterator[torch.device]:
    """Where hooks bring inputs and weights together; that of `cpu_offload_with_hook` moves the model itself."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            if hasattr(each, "io_same_device") and each.execution_device is not None:
                yield torch.device(each.execution_device)


LOCK_NAME = "_generation_lock"


class ModelLock:
    """A re-entrant lock that a model carries; copies of the model, also in other processes, get one of their own."""

    def __init__(self):
        self._lock = threading.RLock()

    def __enter__(self):
        self._lock.acquire()
        return self

    def __exit__(self, *error):
        self._lock.release()

    def __reduce__(self):
        return ModelLock, ()


def model_lock(model: PreTrainedModel) -> ModelLock:
    """Return the lock of a model, for a `with` block, the same whichever copy of this code asks for it."""
    return vars(model).setdefault(LOCK_NAME, ModelLock())


SAMPLES = (
    32  # values of each tensor that are read, evenly spaced; at most twice as many, and all where there are no more
)
_PROCESSOR_SETTINGS = ("training_view_size", "mark_arm", "mark_half_thickness", "intrinsics_in_prompt")
_MAX_DEPTH = 8  # of settings within settings


@dataclass(frozen=True)
class ModelState:
    """What a model computes with, as of one moment; two are equal where answers must be.

    Noticed are other modules, tensors (by identity, version, place in memory, shape, dtype and device), settings,
    modes, hooks and adapters; and changed values of parameters and buffers, of which at least `SAMPLES` are read.
    Not noticed is a change through `.data` of a few values among many, and of weights that are offloaded.

    Args:
        modules (`tuple`): each module, its mode, whether it leaves geometry out, and its hooks.
        tensors (`tuple`): each parameter and buffer, without its values.
        settings (`tuple`): the config, and which adapters are on and what they multiply with.
        values (`bytes`): the values that were read.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.processing.model_state_gap_mllm import ModelState
        >>> layer = torch.nn.Linear(4, 2).eval()
        >>> before = ModelState.of(layer)
        >>> before == ModelState.of(layer)
        True
        >>> layer.weight.data += 1
        >>> before == ModelState.of(layer)
        False

        ```
    """

    modules: tuple
    tensors: tuple
    settings: tuple
    values: bytes

    @classmethod
    def of(cls, source: Callable) -> "ModelState":
        """Read the state of a model.

        Args:
            source (`torch.nn.Module` or `Callable`): model, or what calls some: a method of one, a `partial`, a
                closure, or an object that holds them.
        Returns:
            `ModelState`
        """
        roots = models_of(source)
        modules = list(chain.from_iterable(root.modules() for root in roots))
        tensors = list(chain.from_iterable(map(_own_tensors, modules)))
        configs = tuple(settings_of(getattr(root, "config", None)) for root in roots)
        adapters = tuple(map(_adapter_settings, filter(_is_adapter, modules)))
        return cls(
            tuple(map(_module_facts, modules)),
            tuple(map(_tensor_facts, tensors)),
            (configs, adapters),
            sampled_values(tensors),
        )


def models_of(source: Callable, depth: int = 3) -> list[nn.Module]:
    """Return the models that a callable is known to call: itself, or those that it is bound to, closes over or holds.

    Args:
        source (`Callable`): model, method, `partial`, function, or an object with models as attributes.
        depth (`int`, defaults to 3): how far callables within callables are followed.
    """
    if isinstance(source, nn.Module):
        return [source]
    models = []
    for each in _held(source) if depth else ():
        models += [model for model in models_of(each, depth - 1) if all(model is not other for other in models)]
    return models


def _held(source):
    """What a callable may call."""
    if isinstance(source, list | tuple):
        return source
    if isinstance(source, Mapping):
        return list(source.values())
    if isinstance(source, partial):
        return [source.func, *source.args, *source.keywords.values()]
    if isinstance(source, MethodType):
        return [source.__self__, source.__func__]
    if isinstance(source, FunctionType):
        return _closed_over(source)
    return list(vars(source).values()) if callable(source) and hasattr(source, "__dict__") else []


def processor_state(processor: ProcessorMixin) -> tuple:
    """Return what the pixels depend on that a processor makes, crosses included; equal where they must be.

    Args:
        processor (`GapMllmProcessor`): the image processor's settings and the sizes of crosses are read.
    """
    images = processor.image_processor
    own = tuple((name, settings_of(getattr(processor, name, None))) for name in _PROCESSOR_SETTINGS)
    return type(images), settings_of(vars(images)), own


def settings_of(value, depth: int = _MAX_DEPTH):
    """Return a setting in a form that compares: numbers and texts by value, all else by type or identity.

    Args:
        value: a setting; mappings, sequences and objects with attributes are entered.
        depth (`int`, defaults to 8): how deep.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return type(value), value if value == value else "nan"
    if isinstance(value, torch.Tensor):
        return _tensor_facts(value), sampled_values(_plain_tensors(value))
    if callable(value) or depth == 0:
        return type(value), id(value)
    if isinstance(value, Mapping):
        return type(value), tuple((repr(key), settings_of(each, depth - 1)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(settings_of(each, depth - 1) for each in value)
    if isinstance(value, set | frozenset):
        return type(value), tuple(sorted(map(repr, value)))
    if hasattr(value, "__dict__"):
        return type(value), settings_of(vars(value), depth - 1)
    return type(value), repr(value)


def sampled_values(tensors: list[torch.Tensor]) -> bytes:
    """Read a few values of each tensor, bit for bit, in one transfer from each device; of those on "meta" none.

    Args:
        tensors (`list[torch.Tensor]`): tensors of any dtype and layout in memory.
    Returns:
        `bytes`
    """
    groups, by_device = {}, {}
    for tensor in filter(_is_readable, tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append(_samples(tensor))
    with torch.no_grad():
        for (device, _), samples in groups.items():
            by_device.setdefault(device, []).append(torch.cat(samples).view(torch.uint8))
        return b"".join(torch.cat(parts).cpu().numpy().tobytes() for parts in by_device.values())


def _is_readable(tensor):
    is_plain = tensor.device.type != "meta" and tensor.layout == torch.strided and not tensor.is_quantized
    return is_plain and tensor.numel() > 0


def _samples(tensor):
    """A view of evenly spaced values, whatever their order in memory; all of a small tensor."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    step = max(1, last // SAMPLES)
    return tensor.detach().as_strided((last // step + 1,), (step,))


def _module_facts(module):
    """A module, its mode, whether it leaves geometry out, and the hooks on it."""
    hooks = tuple(module._forward_pre_hooks), tuple(module._forward_hooks)
    return id(module), type(module), module.training, getattr(module, "_geometry_disabled", 0), hooks


def _own_tensors(module):
    """The tensors with memory of their own among parameters and buffers of a module itself."""
    tensors = []
    for each in (*module._parameters.values(), *module._buffers.values()):
        if each is not None:
            tensors += _plain_tensors(each)
    return tensors


def _plain_tensors(tensor):
    """A tensor, or the parts of a sharded or quantised one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    parts = []
    for name in tensor.__tensor_flatten__()[0]:
        parts += _plain_tensors(getattr(tensor, name))
    return parts


def _tensor_facts(tensor):
    """A tensor without its values; one on "meta" has no identity: hooks put another there after each call."""
    kind = tensor.shape, tensor.dtype, tensor.device
    if tensor.device.type == "meta":
        return kind
    version = 0 if tensor.is_inference() else tensor._version
    return *kind, id(tensor), version, tensor.data_ptr() if tensor.layout == torch.strided else 0


def _is_adapter(module):
    """Whether a module is a layer of PEFT; models have the names of these settings, too."""
    return hasattr(module, "active_adapters") and not isinstance(module, PreTrainedModel)


def _adapter_settings(layer):
    """Which adapters of a layer are on, and what they are multiplied with."""
    names = ("disable_adapters", "active_adapters", "merged_adapters", *getattr(layer, "other_param_names", ()))
    return tuple((name, settings_of(getattr(layer, name, None))) for name in names)


def _closed_over(function):
    """What a function of its own closes over; a cell may be empty yet."""
    held = []
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:
            continue
    return held
