"""Configuration classes of GAP-MLLM: geometry encoder, fusion, and the whole model on Qwen3-VL.

No torch in here. Every size, token id and tap layer of the model is decided by these classes; defaults are the
published ones (Qwen3-VL-2B-Instruct, VGGT-1B, GAP-MLLM arXiv:2603.16461).
"""

import difflib

from huggingface_hub.dataclasses import strict

from .publishing_gap_mllm import PublishedConfig, needed_from_transformers, sub_config_specs


with needed_from_transformers():
    from transformers import PreTrainedConfig
    from transformers.models.qwen3_vl.configuration_qwen3_vl import (
        Qwen3VLConfig,
        Qwen3VLTextConfig,
        Qwen3VLVisionConfig,
    )


FUSION_METHODS = (
    "gated",
    "add",
    "concat",
    "weighted",
    "cross_attention",
    "spatial_mllm",
    "vlm3r",
    "geothinker",
    "bidirectional",
)
FUSED_LEVELS = ("all", "final")
POSITION_ENCODINGS = ("position_3d",)
ATTENTION_METHODS = ("cross_attention", "vlm3r", "geothinker", "bidirectional")
IMPORTANCE_SOURCES = ("geometry", "visual")
_OWN_MERGER = ("spatial_mllm", "vlm3r")  # methods that bring their own merger, and fuse into the final tokens only
MERGER_TYPES = ("mlp", "avg")
MERGER_NORMS = ("rms_norm", "layer_norm")
# Fields of the fusion that only some choices of another field read.
FUSION_FIELDS_OF = {
    ("method", ("cross_attention",)): ("num_layers",),
    ("method", ("geothinker",)): ("importance_from",),
    ("method", ("bidirectional",)): ("num_neighbors",),
    ("method", ATTENTION_METHODS): ("num_attention_heads", "dropout"),
    ("method", tuple(name for name in FUSION_METHODS if name != "spatial_mllm")): ("video_frames",),
    ("method", tuple(name for name in FUSION_METHODS if name not in _OWN_MERGER)): (
        "merger_type",
        "merger_hidden_size",
        "merger_norm",
    ),
    ("merger_type", ("mlp",)): ("merger_norm", "merger_norm_eps"),
    ("position_encoding", POSITION_ENCODINGS): ("position_voxel_size",),
}
FUSION_INITS = ("identity", "reference")
TOKEN_HEADS = ("correspondence", "consistency", "shape", "region_text", "relations", "label_map")
TRAINING_HEADS = ("distillation", "depth", "camera", "metric_scale", *TOKEN_HEADS)
REFERENCE_FRAMES = ("first", "last")
VIDEO_FRAMES = ("mean", "first")

PUBLISHED_TAP_LAYERS = (4, 11, 17, 23)  # of 24: VGGT's DPT layers, and GAP-MLLM's four levels

# Qwen/Qwen3-VL-2B-Instruct, the base model of the published GAP-MLLM.
PUBLISHED_TEXT_CONFIG = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5000000,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
PUBLISHED_VISION_CONFIG = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "out_hidden_size": 2048,
    "deepstack_visual_indexes": [5, 11, 17],
}

# Keys of PreTrainedConfig that are no fields of it but may stand in a config.json or come from from_pretrained.
_BASE_KEYS = {
    "torch_dtype",
    "name_or_path",
    "_name_or_path",
    "_commit_hash",
    "output_attentions",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation_internal",
    "num_labels",
    "model_type",
    "auto_map",
    "transformers_version",
    "per_layer_config",
    # Set by Trainer, the ids to those of the tokenizer.
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
}


def _refuse_unknown_keys(config, kwargs):
    unknown = sorted(set(kwargs) - _BASE_KEYS)
    if unknown:
        fields = sorted(name for name in type(config).__annotations__ if not name.startswith("_"))
        raise ValueError(f"{type(config).__name__} does not know the keys {unknown}. Its own keys are {fields}.")


def _refuse_misspelt_keys(config, kwargs):
    """For the top level, where Trainer and quantisers leave keys of their own: those must load again."""
    fields = [name for name in type(config).__dataclass_fields__ if name not in kwargs]
    for key in sorted(set(kwargs) - _BASE_KEYS):
        close = difflib.get_close_matches(key, fields, n=1, cutoff=0.8)
        if close:
            raise ValueError(f"{type(config).__name__} does not know the key {key!r}. Did you mean {close[0]!r}?")


def _require_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not known. Choose one of {list(choices)}.")


def _check_layers(config):
    """Refuse tap layers and heads of an encoder that cannot be."""
    taps, depth = config.tap_layers, config.num_hidden_layers
    if not taps or taps != sorted(taps):
        raise ValueError(f"tap_layers={taps} must be in rising order.")
    if taps[0] < 0 or taps[-1] >= depth:
        raise ValueError(f"tap_layers={taps} lie outside the {depth} layers (0 to {depth - 1}) of the encoder.")
    if config.hidden_size % config.num_attention_heads or (config.hidden_size // config.num_attention_heads) % 4:
        raise ValueError(
            f"hidden_size={config.hidden_size} over num_attention_heads={config.num_attention_heads} must give a head "
            "size that is a multiple of 4 (two axes of rotary pairs)."
        )


# Keys of VGGT's own configuration -> our fields; for each section also what is built in and cannot be chosen.
_OFFICIAL_KEYS = {
    "img_size": "image_size",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "rope_freq": "rope_theta",
    "qk_norm": "use_qk_norm",
    "init_values": "layer_scale_init_value",
}
_OFFICIAL_SECTIONS = {
    "patch_embed": (
        {
            "depth": "patch_embed_depth",
            "num_heads": "patch_embed_num_heads",
            "mlp_ratio": "patch_embed_mlp_ratio",
            "num_register_tokens": "patch_embed_num_register_tokens",
            "layer_norm_eps": "patch_embed_layer_norm_eps",
            "init_values": "patch_embed_layer_scale_init_value",
        },
        {"interpolate_antialias": True, "interpolate_offset": 0.0},
    ),
    "camera_head": (
        {
            "trunk_depth": "camera_trunk_depth",
            "num_heads": "camera_num_heads",
            "mlp_ratio": "camera_mlp_ratio",
            "num_iterations": "camera_num_iterations",
        },
        {
            "trans_act": "linear",
            "quat_act": "linear",
            "fl_act": "relu",
            "pose_encoding_type": "absT_quaR_FoV",
        },
    ),
    "dpt": (
        {
            "features": "dpt_features",
            "out_channels": "dpt_out_channels",
            "intermediate_layer_idx": "tap_layers",
            "head_hidden": "dpt_head_hidden_size",
        },
        {"pos_embed": True, "down_ratio": 1},
    ),
    "depth_head": ({}, {"output_dim": 2, "activation": "exp", "conf_activation": "expp1"}),
    "point_head": ({}, {"output_dim": 4, "activation": "inv_log", "conf_activation": "expp1"}),
}


@strict
class GapMllmVggtConfig(PublishedConfig, PreTrainedConfig):
    """Shape of the VGGT geometry encoder, with the reconstruction heads.

    Reads three forms: its own fields; the official checkpoint's `{"img_size", "patch_size", "embed_dim"}`; and the
    nested form with `patch_embed`, `camera_head`, `dpt`, `depth_head` and `point_head`. Source: VGGT (CVPR 2025).

    Args:
        image_size (`int`, defaults to 518): side in pixels of the square whose grid the learned position embedding
            has.
        tap_layers (`list[int]`, *optional*): zero-based layers whose outputs are kept, in rising order. By default
            the published (4, 11, 17, 23) at depth 24, else the last layer of each quarter of the depth.
        patch_embed_depth (`int`, defaults to 24): blocks of the DINOv2 patch embedding.
        camera_mlp_ratio (`float`, defaults to 4.0): ratio of the camera head's trunk, which has width
            `2 * hidden_size`.
        dpt_out_channels (`list[int]`, defaults to `(256, 512, 1024, 1024)`): channels of the four DPT levels, each a
            multiple of 4.
        image_mean (`list[float]`, defaults to `(0.485, 0.456, 0.406)`), image_std (`list[float]`, defaults to
            `(0.229, 0.224, 0.225)`): the encoder's own normalisation of RGB in 0..1.
        frames_chunk_size (`int`, defaults to 8): views that pass through a DPT head at a time.
        token_chunk_size (`int`, *optional*): tokens that pass through an MLP at a time, to bound peak memory.
        special_token_std (`float`, defaults to 1e-06): spread of the initial camera, register and class tokens. The
            published 1e-6 suits long training; short training tells first and other views apart sooner with a larger
            one.
    Raises:
        ValueError: on an unknown key, tap layers outside the depth, or widths that the heads do not divide.
    """

    model_type = "gap_mllm_vggt"
    base_config_key = "geometry_config"

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    mlp_ratio: float | int = 4.0
    image_size: int = 518
    patch_size: int = 14
    num_register_tokens: int = 4
    rope_theta: float | int = 100.0
    use_qk_norm: bool = True
    layer_norm_eps: float = 1e-5
    layer_scale_init_value: float = 0.01
    tap_layers: list[int] | tuple[int, ...] | None = None
    patch_embed_depth: int = 24
    patch_embed_num_heads: int = 16
    patch_embed_mlp_ratio: float | int = 4.0
    patch_embed_num_register_tokens: int = 4
    patch_embed_layer_norm_eps: float = 1e-6
    patch_embed_layer_scale_init_value: float = 1.0
    camera_trunk_depth: int = 4
    camera_num_heads: int = 16
    camera_mlp_ratio: float | int = 4.0
    camera_num_iterations: int = 4
    dpt_features: int = 256
    dpt_out_channels: list[int] | tuple[int, ...] = (256, 512, 1024, 1024)
    dpt_head_hidden_size: int = 32
    image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225)
    frames_chunk_size: int = 8
    token_chunk_size: int | None = None
    initializer_range: float = 0.02
    special_token_std: float = 1e-6

    def __post_init__(self, **kwargs):
        kwargs = self._read_official_form(kwargs)
        _refuse_unknown_keys(self, kwargs)
        if self.tap_layers is None:
            depth = self.num_hidden_layers
            published = depth == PUBLISHED_TAP_LAYERS[-1] + 1
            self.tap_layers = PUBLISHED_TAP_LAYERS if published else [max(depth * k // 4, 1) - 1 for k in (1, 2, 3, 4)]
        self.tap_layers = list(self.tap_layers)
        self._check()
        super().__post_init__(**kwargs)

    @property
    def feature_size(self):
        """Width of a tapped feature: frame attention and global attention side by side."""
        return 2 * self.hidden_size

    def _read_official_form(self, kwargs):
        """Move the keys of the official and of the nested form to the fields; return the keys that are left."""
        for key in ("enable_camera", "enable_depth", "enable_point"):
            if kwargs.pop(key, True) is not True:
                raise ValueError(f"{key} must be true: the reconstruction model has all of its heads.")
        kwargs.pop("enable_track", None)  # the tracking head is not part of this port; its weights are ignored
        for key in [key for key in kwargs if key in _OFFICIAL_KEYS]:
            setattr(self, _OFFICIAL_KEYS[key], kwargs.pop(key))
        for name in [name for name in kwargs if name in _OFFICIAL_SECTIONS]:
            fields, built_in = _OFFICIAL_SECTIONS[name]
            if not isinstance(kwargs[name], dict):
                raise ValueError(f"{name} must be a mapping with the keys {list(fields)}, got {kwargs[name]!r}.")
            section = {key: value for key, value in kwargs.pop(name).items() if key != "type"}
            width = self.hidden_size if name == "patch_embed" else 2 * self.hidden_size
            for key, value in {**built_in, "embed_dim": width, "dim_in": width}.items():
                if section.pop(key, value) != value:
                    raise ValueError(f"{name}.{key} must be {value!r}: nothing else is built for this embed_dim.")
            unknown = sorted(set(section) - set(fields))
            if unknown:
                raise ValueError(f"GapMllmVggtConfig does not know the keys {unknown} of {name}.")
            for key, value in section.items():
                if fields[key] == "tap_layers" and list(self.tap_layers or value) != list(value):
                    raise ValueError(
                        f"tap_layers={list(self.tap_layers)} and {name}.{key}={list(value)} differ. Give one of them."
                    )
                setattr(self, fields[key], value)
        return kwargs

    def _check(self):
        _check_layers(self)
        if self.hidden_size % self.patch_embed_num_heads or 2 * self.hidden_size % self.camera_num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be divisible by patch_embed_num_heads="
                f"{self.patch_embed_num_heads}, and twice it by camera_num_heads={self.camera_num_heads}."
            )
        if len(self.dpt_out_channels) != 4 or any(c % 4 for c in (*self.dpt_out_channels, self.dpt_features // 2)):
            raise ValueError(
                f"dpt_out_channels={list(self.dpt_out_channels)} must be four multiples of 4, and "
                f"dpt_features={self.dpt_features} a multiple of 8 (sine-cosine positions are added to both)."
            )


@strict
class GapMllmVggtPointsConfig(GapMllmVggtConfig):
    """Shape of VGGT as an encoder that also tells points, by its camera and depth heads; see `GapMllmVggtConfig`."""

    model_type = "gap_mllm_vggt_points"


@strict
class GapMllmGeometryMapsConfig(PublishedConfig, PreTrainedConfig):
    """Shape of the encoder of depth and normal maps: layers of attention within views, then over the scene.

    Args:
        hidden_size (`int`, defaults to 768), num_hidden_layers (`int`, defaults to 12), num_attention_heads (`int`,
            defaults to 12): width, number and heads of its layers; each is a block within views and one over the
            scene.
        tap_layers (`list[int]`, *optional*): zero-based layers whose outputs are kept, in rising order; by default
            the last of each quarter of the depth.
        patch_size (`int`, *optional*): side of a patch of the maps in pixels; by default that of the teacher, whose
            maps must have the same, else 14.
        teacher_config (`dict` or `GapMllmVggtConfig`, *optional*): VGGT with its heads, inside the encoder, whose
            depth and cameras stand in where none are known; it is never trained. Without it depth must be known.
        max_depth_jump (`float`, defaults to 0.05): jump of depth to a neighbour, as a share of it, beyond which a
            pixel has no normal.
    Raises:
        ValueError: on an unknown key, tap layers outside the depth, a width that heads do not divide, or patch sizes
            that differ.
    """

    model_type = "gap_mllm_geometry_maps"
    base_config_key = "geometry_config"
    sub_configs = {"teacher_config": GapMllmVggtConfig}

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: float | int = 4.0
    patch_size: int | None = None
    num_register_tokens: int = 4
    rope_theta: float | int = 100.0
    use_qk_norm: bool = True
    layer_norm_eps: float = 1e-5
    layer_scale_init_value: float = 0.01
    tap_layers: list[int] | tuple[int, ...] | None = None
    teacher_config: dict | PreTrainedConfig | None = None
    max_depth_jump: float = 0.05
    token_chunk_size: int | None = None
    initializer_range: float = 0.02
    special_token_std: float = 0.02

    def __post_init__(self, **kwargs):
        _refuse_unknown_keys(self, kwargs)
        if isinstance(self.teacher_config, dict):
            teacher = {key: value for key, value in self.teacher_config.items() if key != "model_type"}
            _require_choice(
                "teacher_config.model_type", self.teacher_config.get("model_type"), (None, "gap_mllm_vggt")
            )
            self.teacher_config = GapMllmVggtConfig(**teacher)
        teacher_patch = None if self.teacher_config is None else self.teacher_config.patch_size
        if self.patch_size is None:
            self.patch_size = teacher_patch or 14
        if teacher_patch not in (None, self.patch_size):
            raise ValueError(
                f"patch_size={self.patch_size} and that of the teacher, {teacher_patch}, differ; the maps of the "
                "teacher are of its patches. Leave patch_size out."
            )
        if self.tap_layers is None:
            self.tap_layers = [max(self.num_hidden_layers * k // 4, 1) - 1 for k in (1, 2, 3, 4)]
        self.tap_layers = list(self.tap_layers)
        _check_layers(self)
        super().__post_init__(**kwargs)

    @property
    def feature_size(self):
        """Width of a tapped feature: attention within views and over the scene side by side."""
        return 2 * self.hidden_size


@strict
class GapMllmFusionConfig(PublishedConfig, PreTrainedConfig):
    """How geometry joins the visual tokens: a 2x2 merger and a fusion for each level.

    Args:
        method (`str`, defaults to "gated"): "gated" (GAP-MLLM's token gate), "add", "concat", "weighted",
            "cross_attention", "spatial_mllm" (Spatial-MLLM's connector, added), "vlm3r" (VLM-3R's cross-attention to
            camera and patch tokens), "geothinker" (GeoThinker's, gated by importance) or "bidirectional" (attention
            both ways, visual tokens only to those of like geometry).
        fused_levels (`str`, *optional*): "all", or "final" to leave the DeepStack levels as they are; by default
            "final" with "spatial_mllm" and "vlm3r", whose sources have no others, else "all".
        merger_type (`str`, defaults to "mlp"): "mlp" (RMSNorm, 2x2 window concatenated, MLP) or "avg" (2x2 average,
            MLP); refused with "spatial_mllm" and "vlm3r", as are the merger's width and norm.
        merger_hidden_size (`int`, defaults to 4096): hidden width of the merger's MLP.
        merger_norm (`str`, defaults to "rms_norm"): "rms_norm", or "layer_norm" for checkpoints of the reference's
            fallback; "mlp" only, refused elsewhere.
        num_layers (`int`, defaults to 1): blocks of "cross_attention" only, refused elsewhere.
        num_attention_heads (`int`, defaults to 8), dropout (`float`, defaults to 0.1): heads and rate of
            "cross_attention", "vlm3r", "geothinker" and "bidirectional" only, refused elsewhere.
        importance_from (`str`, defaults to "geometry"): what "geothinker" reads the importance of a geometry token
            from: itself, or "visual", the visual token at its place, as the release does; refused elsewhere.
        num_neighbors (`int`, defaults to 32): visual tokens of a frame that one attends to, itself included;
            "bidirectional" only, refused elsewhere.
        init (`str`, defaults to "identity"): "identity" starts every level's `strength` at 0, which is plain Qwen3-VL
            bit for bit; "reference" starts it at 1, the published fusion bit for bit. `Differs:` the reference has no
            strength.
        train_strength (`bool`, *optional*): whether `strength` is trained; by default exactly with init="identity".
        video_frames (`str`, defaults to "mean"): "mean" averages the geometry of a temporal patch's frames, "first"
            takes the first's; refused with "spatial_mllm", which takes both side by side.
        position_encoding (`str`, *optional*): "position_3d" adds sines and cosines of where each visual token lies in
            space to the final tokens, beside any method (Video-3D-LLM); from known depth and poses, or the encoder's
            points. None by default.
        position_voxel_size (`float`, defaults to 0.1): side of the voxels of "position_3d", in metres or the units of
            the encoder; refused without it.
    Raises:
        ValueError: on an unknown key, a choice that is not in the list, or a field that the choices leave unread.
    """

    model_type = "gap_mllm_fusion"
    base_config_key = "gap_fusion_config"

    method: str = "gated"
    fused_levels: str | None = None
    merger_type: str = "mlp"
    merger_hidden_size: int = 4096
    num_layers: int = 1
    num_attention_heads: int = 8
    dropout: float | int = 0.1
    importance_from: str = "geometry"
    num_neighbors: int = 32
    layer_norm_eps: float = 1e-5
    merger_norm: str = "rms_norm"
    merger_norm_eps: float = 1e-6
    init: str = "identity"
    train_strength: bool | None = None
    video_frames: str = "mean"
    position_encoding: str | None = None
    position_voxel_size: float | int = 0.1
    initializer_range: float = 0.02
    # Set by GapMllmConfig from the tower and the encoder; given by hand only to build a fusion alone.
    hidden_size: int = 2048
    geometry_hidden_size: int = 2048
    num_levels: int = 4
    spatial_merge_size: int = 2

    def __post_init__(self, **kwargs):
        _refuse_unknown_keys(self, kwargs)
        _require_choice("gap_fusion_config.method", self.method, FUSION_METHODS)
        _require_choice("gap_fusion_config.merger_type", self.merger_type, MERGER_TYPES)
        _require_choice("gap_fusion_config.merger_norm", self.merger_norm, MERGER_NORMS)
        _require_choice("gap_fusion_config.importance_from", self.importance_from, IMPORTANCE_SOURCES)
        _require_choice("gap_fusion_config.init", self.init, FUSION_INITS)
        _require_choice("gap_fusion_config.video_frames", self.video_frames, VIDEO_FRAMES)
        if self.position_encoding is not None:
            _require_choice("gap_fusion_config.position_encoding", self.position_encoding, POSITION_ENCODINGS)
        for (choice, values), names in FUSION_FIELDS_OF.items():
            for name in names if getattr(self, choice) not in values else ():
                if getattr(self, name) != self.__dataclass_fields__[name].default:
                    raise ValueError(
                        f"gap_fusion_config.{name}={getattr(self, name)!r} has no effect with {choice}="
                        f"{getattr(self, choice)!r}, only with {', '.join(map(repr, values))}. Leave it out."
                    )
        if self.fused_levels is None:
            self.fused_levels = "final" if self.method in _OWN_MERGER else "all"
        _require_choice("gap_fusion_config.fused_levels", self.fused_levels, FUSED_LEVELS)
        if self.train_strength is None:
            self.train_strength = self.init == "identity"
        if self.method in ATTENTION_METHODS and (
            self.hidden_size % self.num_attention_heads or self.hidden_size % 4 or self.num_layers < 1
        ):
            raise ValueError(
                f"{self.method} needs hidden_size={self.hidden_size} divisible by 4 and by num_attention_heads="
                f"{self.num_attention_heads}, and num_layers={self.num_layers} of at least 1."
            )
        if self.position_voxel_size <= 0:
            raise ValueError(f"gap_fusion_config.position_voxel_size={self.position_voxel_size} must be above 0.")
        if self.position_encoding is not None and self.geometry_hidden_size < 10:
            raise ValueError(
                f"position_encoding needs 10 channels of geometry, but the encoder has {self.geometry_hidden_size}."
            )
        if self.num_neighbors < 1:
            raise ValueError(f"gap_fusion_config.num_neighbors={self.num_neighbors} must be at least 1.")
        super().__post_init__(**kwargs)

    @property
    def camera_tokens(self):
        """Rows of tapped features for each view's camera, before those of its patches: 0, or 1 for "vlm3r"."""
        return int(self.method == "vlm3r")

    @property
    def position_levels(self):
        """Levels of tapped features behind those that are fused, for where patches lie in space: 0 or 1."""
        return int(self.position_encoding is not None)


# Geometry encoders by model_type. An explicit dict, since remote code must not dispatch through Auto classes.
GEOMETRY_CONFIGS = {
    "gap_mllm_vggt": GapMllmVggtConfig,
    "gap_mllm_vggt_points": GapMllmVggtPointsConfig,
    "gap_mllm_geometry_maps": GapMllmGeometryMapsConfig,
}


def _build_geometry_config(value):
    if value is None:
        return GapMllmVggtConfig()
    if not isinstance(value, dict):
        return value
    value = dict(value)
    model_type = value.pop("model_type", None) or "gap_mllm_vggt"
    if model_type not in GEOMETRY_CONFIGS:
        raise ValueError(
            f"geometry_config.model_type={model_type!r} is not known. Choose one of {sorted(GEOMETRY_CONFIGS)}."
        )
    return GEOMETRY_CONFIGS[model_type](**value)


@strict
class GapMllmConfig(PublishedConfig, Qwen3VLConfig):
    """Qwen3-VL with a geometry encoder and a multi-level fusion.

    The fusion's widths and number of levels follow from the vision tower and the encoder: one level for each
    DeepStack layer, and one for the final visual tokens (GAP-MLLM, arXiv:2603.16461).

    Args:
        geometry_config (`dict` or `PreTrainedConfig`, *optional*): the encoder; `model_type` chooses its class.
        gap_fusion_config (`dict` or `GapMllmFusionConfig`, *optional*): (`fusion_config` is a reserved name.)
        image_mean (`list[float]`, defaults to `(0.5, 0.5, 0.5)`), image_std (`list[float]`, defaults to
            `(0.5, 0.5, 0.5)`): normalisation that the processor applied to `pixel_values`, undone to recover the image
            for the geometry encoder. Must equal the processor's.
        reference_frame (`str`, defaults to "first"): "first" or "last" view of a scene is the one whose camera frame
            is the world.
        use_geometry (`bool`, defaults to True): False runs plain Qwen3-VL.
        geometry_weights (`str`, *optional*): folder or repository from which `from_pretrained` reads the encoder's
            weights, for checkpoints that leave them out; None where they are part of the checkpoint.
        point_map_side (`int`, defaults to 4): side of the pre-training heads' maps, points per visual token along each
            axis.
        training_heads (`dict`, *optional*): settings of the heads on hidden states that `GapMllmForPreTraining` has,
            by their names; none by default. See training_heads_gap_mllm.py.
    Raises:
        ValueError: on an unknown encoder or choice, a key that looks misspelt, or if tap layers and DeepStack levels
            do not pair up.

    Example:
        ```python
        >>> from gap_mllm import GapMllmConfig
        >>> config = GapMllmConfig(gap_fusion_config={"method": "add"})  # other parts as published
        >>> config.gap_fusion_config.method, config.geometry_config.tap_layers
        ('add', [4, 11, 17, 23])

        ```
    """

    model_type = "gap_mllm"
    sub_configs = {
        "vision_config": Qwen3VLVisionConfig,
        "text_config": Qwen3VLTextConfig,
        "geometry_config": GapMllmVggtConfig,
        "gap_fusion_config": GapMllmFusionConfig,
    }
    sub_configs_defaults = sub_config_specs(sub_configs)

    geometry_config: dict | PreTrainedConfig | None = None
    gap_fusion_config: dict | PreTrainedConfig | None = None
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    reference_frame: str = "first"
    use_geometry: bool = True
    geometry_weights: str | None = None
    point_map_side: int = 4
    training_heads: dict | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs):
        _refuse_misspelt_keys(self, kwargs)
        if self.text_config is None:
            self.text_config = dict(PUBLISHED_TEXT_CONFIG)
        if self.vision_config is None:
            self.vision_config = dict(PUBLISHED_VISION_CONFIG)
        # Before super: transformers would build the default class whatever model_type the dict names.
        self.geometry_config = _build_geometry_config(self.geometry_config)
        if self.gap_fusion_config is None:
            self.gap_fusion_config = {}
        if isinstance(self.gap_fusion_config, dict):
            fusion = dict(self.gap_fusion_config)
            vision = self.vision_config
            vision = Qwen3VLVisionConfig(**vision) if isinstance(vision, dict) else vision
            fusion["hidden_size"] = vision.out_hidden_size
            fusion["geometry_hidden_size"] = self.geometry_config.feature_size
            fusion["num_levels"] = len(vision.deepstack_visual_indexes) + 1
            fusion["spatial_merge_size"] = vision.spatial_merge_size
            self.gap_fusion_config = GapMllmFusionConfig(**fusion)
        super().__post_init__(**kwargs)
        self._check()

    @property
    def _attn_implementation(self):
        return self._attn_implementation_internal

    @_attn_implementation.setter
    def _attn_implementation(self, value):
        self.check_attn_implementation(value)
        PreTrainedConfig._attn_implementation.fset(self, value)

    def check_attn_implementation(self, attn_implementation: str | dict[str, str] | None):
        """Refuse what transformers would take and not follow.

        Args:
            attn_implementation (`str` or `dict[str, str]`, *optional*): kernel of the whole model, or of its parts by
                the names of their sub-configs.
        Raises:
            ValueError: on a part that is not known, or for vLLM's attention.
        """
        asked = attn_implementation if isinstance(attn_implementation, dict) else {"": attn_implementation}
        unknown = sorted(set(asked) - {"", *self.sub_configs})
        if unknown:
            raise ValueError(
                f"attn_implementation names {unknown}, which are no parts of the model. Its parts are text_config "
                "(language model), vision_config (vision tower), geometry_config (geometry encoder) and "
                "gap_fusion_config (fusion)."
            )
        if "vllm" in asked.values():
            raise ValueError(
                "attn_implementation='vllm' is that of vLLM's transformers backend, which encodes each view alone and "
                "drops DeepStack, so that answers would be wrong. In vLLM the plug-in of examples/vllm has the model; "
                "elsewhere generate with this model itself."
            )

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs: object):
        """As in transformers; what `kwargs` put in the place of the dict's is checked like it."""
        loaded = super().from_dict(config_dict, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded)._check()
        return loaded

    def _check(self):
        _require_choice("reference_frame", self.reference_frame, REFERENCE_FRAMES)
        if len(self.image_mean) != 3 or len(self.image_std) != 3 or min(self.image_std) <= 0:
            raise ValueError(
                f"image_mean={list(self.image_mean)} and image_std={list(self.image_std)} must be three numbers "
                "each (RGB), the latter positive."
            )
        for name, settings in (self.training_heads or {}).items():
            _require_choice("training_heads", name, TRAINING_HEADS)
            if not isinstance(settings, dict) or not settings.get("layers"):
                raise ValueError(f"training_heads.{name} is {settings!r}; expected its settings, with its layers.")
        fusion, vision, geometry = self.gap_fusion_config, self.vision_config, self.geometry_config
        _require_choice("geometry_config.model_type", geometry.model_type, sorted(GEOMETRY_CONFIGS))
        _require_choice("gap_fusion_config.model_type", fusion.model_type, ("gap_mllm_fusion",))
        levels = len(vision.deepstack_visual_indexes) + 1
        if len(geometry.tap_layers) != levels:
            raise ValueError(
                f"The geometry encoder taps {len(geometry.tap_layers)} layers {list(geometry.tap_layers)}, but there "
                f"are {levels} levels: one for each of deepstack_visual_indexes="
                f"{list(vision.deepstack_visual_indexes)} and one for the final tokens. Make the numbers equal."
            )
        widths = (fusion.hidden_size, fusion.geometry_hidden_size, fusion.num_levels, fusion.spatial_merge_size)
        expected = (vision.out_hidden_size, geometry.feature_size, levels, vision.spatial_merge_size)
        if widths != expected:
            raise ValueError(
                "gap_fusion_config has (hidden_size, geometry_hidden_size, num_levels, spatial_merge_size) = "
                f"{widths}, but the vision tower and the encoder need {expected}. Leave them out to have them set."
            )
