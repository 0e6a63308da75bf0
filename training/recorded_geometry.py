"""What was recorded with views, as known geometry of a model: which of it a training hands on, and to which models."""

from collections.abc import Sequence

from ..configuration_gap_mllm import GapMllmConfig
from ..known_geometry_gap_mllm import KNOWN_FIELDS, KnownGeometry
from ..processing.argument_checks import check_names
from ..processing.data.scene_sample import View
from .teachers.recorded_teacher import RecordedTeacher


def recorded_geometry(views: Sequence[View], sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> KnownGeometry:
    """Bring what was recorded with views to the sizes at which the model gets them.

    Frame: poses to the camera of the first view. Units: metres, pixels. What a view lacks is None; depth without
    intrinsics, too, whose points are not known.

    Args:
        views (`Sequence[View]`): views of one scene.
        sizes (`Sequence[tuple[int, int]]`): height and width of each in pixels.
        names (`Sequence[str]`): fields to tell, of `KNOWN_FIELDS`.
    Returns:
        `KnownGeometry`.
    Raises:
        ValueError, RecordError: as `RecordedTeacher` and `KnownGeometry.checked`.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.training.recorded_geometry import recorded_geometry
        >>> known = recorded_geometry(render_room(0).as_sample().views[:2], [(64, 64)] * 2, ["intrinsics", "depth"])
        >>> known.depth[1].shape, known.poses
        (torch.Size([64, 64]), None)

        ```
    """
    told = RecordedTeacher()(views).resized(sizes)
    cameras = [camera if camera.isfinite().all() else None for camera in told.intrinsics]
    known = {"intrinsics": cameras}
    known["poses"] = [pose if pose.isfinite().all() else None for pose in told.camera_to_first]
    known["depth"] = [
        depth if camera is not None and (depth > 0).any() else None
        for depth, camera in zip(told.depth, cameras, strict=True)
    ]
    known = KnownGeometry(**{name: known[name] for name in names})
    if names:
        known.checked(sizes, [len(sizes)])  # here, where the scene is known; the model sees those of all scenes
    return known


def join_known(parts: Sequence[KnownGeometry], names: Sequence[str]) -> KnownGeometry:
    """What is known of the views of several scenes, one after the other."""
    return KnownGeometry(**{name: [each for part in parts for each in getattr(part, name)] for name in names})


def needs_known_depth(config: GapMllmConfig) -> bool:
    """Whether a model reads depth that nothing in it derives from pixels."""
    encoder = config.geometry_config
    if encoder.model_type == "gap_mllm_geometry_maps":
        return config.use_geometry and encoder.teacher_config is None
    is_told = encoder.model_type != "gap_mllm_vggt"
    return config.use_geometry and not is_told and bool(config.gap_fusion_config.position_levels)


def check_known_geometry(config: GapMllmConfig, names: Sequence[str], answers: bool = False) -> None:
    """Refuse a training whose model would not read what is known, or could not do without where it answers.

    Args:
        config (`GapMllmConfig`): config of the model.
        names (`Sequence[str]`): fields that the batches hand on; none for nothing.
        answers (`bool`, defaults to False): whether the model answers questions during the training.
    Raises:
        ValueError: for a name that is not known, or a model that does not fit.
    """
    check_names("known_geometry", names, KNOWN_FIELDS)
    encoder, fusion = config.geometry_config, config.gap_fusion_config
    if names and not fusion.position_levels and encoder.model_type in ("gap_mllm_vggt", "gap_mllm_vggt_points"):
        raise ValueError(
            "known_geometry is given, but VGGT reads pixels alone, and the fusion has no position_encoding: it would "
            "be lost. Take geometry_config: {model_type: gap_mllm_geometry_maps}, or gap_fusion_config: "
            "{position_encoding: position_3d}."
        )
    needs_it = needs_known_depth(config)
    if needs_it and "depth" not in names:
        raise ValueError(
            "The model needs depth that is known. Give known_geometry: [intrinsics, poses, depth], or an encoder that "
            "tells depth: gap_mllm_vggt_points, or gap_mllm_geometry_maps with a teacher."
        )
    if needs_it and answers:
        raise ValueError(
            "num_selection_rooms and eval_rewards have the model answer from pixels alone, and it needs depth that is "
            "known. Leave them out (eval_data gives losses), or give it an encoder that tells depth: "
            "gap_mllm_vggt_points, or gap_mllm_geometry_maps with a teacher."
        )
