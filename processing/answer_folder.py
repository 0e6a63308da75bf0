"""What a session answered, as a folder to look at: answers.json, views with what was found, and the scene in 3D."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from .input_checks_gap_mllm import whole_text
from .scene_3d import place_results, save_scene, scene_from_session, write_scene
from .scene_3d.scene_files import MAX_FILE_POINTS, SCENE_FILE
from .scene_results_gap_mllm import SceneAnswer, SceneCameras, known_cameras
from .scene_session_gap_mllm import SceneSession


ANSWERS_FILE = "answers.json"
USUAL_FORMS = ("glb", "ply", "colmap", "html")
ASSUMED = "assumed"  # in place of who told the intrinsics
ASSUMED_DEGREES = 60  # that the longer side of a picture spans, to draw with; about that of a phone


_ASSUMPTION = (
    "nothing tells the cameras: pictures and the 3D view are drawn as if the longer side of a picture spanned "
    f"{ASSUMED_DEGREES} degrees, which changes no answer; give --intrinsics FX,FY,CX,CY (intrinsics of a session), or "
    "--points-from DIR (points_from), a geometry encoder with its heads"
)
_UNPLACED = (
    "nothing tells the poses: no view but view 0 is placed in 3D, nor what is found in another one's camera; give "
    "--poses FILE (poses of a session), or --points-from DIR (points_from), a geometry encoder with its heads"
)


def write_answers(
    session: SceneSession,
    answers: Sequence[SceneAnswer],
    folder: str | Path,
    forms: Sequence[str] | None = None,
    max_points: int = MAX_FILE_POINTS,
    title: str = "scene",
) -> tuple[list[Path], list[str]]:
    """Write answers as JSON, a picture of each that found something, and all of it in 3D.

    Where the cameras are not known, boxes are drawn as if the longer side of a picture spanned 60 degrees; where poses
    are not, only view 0 is placed in 3D. Notes say so, and what to give; answers and answers.json do not depend on it.
    `gap-mllm show FOLDER` writes further forms.
    Frame: of each answer as it says; in 3D the camera of the first view, OpenCV axes. Units: metres, radians.

    Args:
        session (`SceneSession`): open session.
        answers (list of `SceneAnswer`): what it answered.
        folder (`str` or `Path`): folder to write into; pictures of other answers that lie there are removed.
        forms (list of `str`, *optional*): keys of `WRITERS`; by default GLB, PLY, COLMAP text (not with
            assumed cameras) and HTML, each if what it needs is installed.
        max_points (`int`, defaults to 500000): most points of any form.
        title (`str`, defaults to "scene"): heading of the page.
    Returns:
        `tuple[list[Path], list[str]]`: files that were written, and sentences about what a reader should know.
    Raises:
        ValueError: if the session is closed, a form is unknown, or `max_points` is below 1. ImportError: if a form
            that was named needs an extra.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration, SceneSession
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.answer_folder import write_answers
        >>> from gap_mllm.processing.data import render_room
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> with SceneSession(model, processor, list(render_room(0).images)) as scene:
        ...     files, notes = write_answers(scene, [scene.locate(0, 64, 96)], "answered", ["html"])
        >>> [file.name for file in files]
        ['answers.json', 'answer_1.png', 'scene.npz', 'scene.html']

        ```
    """
    folder, (cameras, notes) = Path(folder), _cameras(session)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("answer_[0-9]*.png"):
        path.unlink()
    scene, left_out = place_results(scene_from_session(session, whole_text(title), cameras), answers)
    pictures = [
        f"answer_{number}.png" if getattr(answer, "boxes", ()) or getattr(answer, "marks", ()) else None
        for number, answer in enumerate(answers, 1)
    ]
    told = {
        "views": [
            {"name": name, "width": width, "height": height}
            for name, (width, height) in zip(session.views.names, session.views.sizes, strict=True)
        ],
        "cameras": asdict(cameras),
        "answers": [answer.to_dict() | {"picture": name} for answer, name in zip(answers, pictures, strict=True)],
        "notes": [*session.views.notes, *notes, *left_out],
    }
    written = [folder / ANSWERS_FILE]
    text = json.dumps(told, indent=2, ensure_ascii=False, default=np.ndarray.tolist)
    written[0].write_text(whole_text(text) + "\n", encoding="utf-8")
    notes = told["notes"]
    try:
        for answer, name in zip(answers, pictures, strict=True):
            if name is not None:
                answer.plot(str(folder / name), cameras)
                written.append(folder / name)
    except ImportError as error:
        notes.append(f"no pictures: {error}")
    written.append(save_scene(scene, folder / SCENE_FILE))
    usual = [form for form in USUAL_FORMS if form != "colmap" or cameras.source[0] != ASSUMED]
    for form in usual if forms is None else forms:
        try:
            written += write_scene(scene, folder, [form], max_points).values()
        except ImportError as error:
            if forms is not None:
                raise
            notes.append(f"no {form}: {error}")
    return written, notes


def _cameras(session) -> tuple[SceneCameras, list[str]]:
    """The cameras to draw with, and a note where they are assumed."""
    try:
        return session.cameras(), []
    except ValueError:  # nothing tells all of them
        known = known_cameras(session.views)
    unplaced = [view for view, pose in enumerate(known.view_to_first_view) if view and pose is None]
    if all(camera is not None for camera in known.intrinsics):
        return known, [_UNPLACED] if unplaced else []
    intrinsics = tuple(
        _assumed_camera(size) if camera is None else camera
        for camera, size in zip(known.intrinsics, session.views.sizes, strict=True)
    )
    notes = [_ASSUMPTION, _UNPLACED] if unplaced else [_ASSUMPTION]
    return replace(known, intrinsics=intrinsics, source=(ASSUMED, known.source[1])), notes


def _assumed_camera(size):
    focal = max(size) / 2 / np.tan(np.radians(ASSUMED_DEGREES / 2))
    return np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
