"""What `data label` writes, on its way to a batch: scenes of a video are asked like those of any other source."""

import shutil

import numpy as np
import pytest
import yaml

from gap_mllm.processing.data import load_multiview, render_room
from gap_mllm.processing.data.video_labels import label_video
from gap_mllm.training import SceneCollator, SceneQuestionDataset
from gap_mllm.training.recipes import find_recipe
from gap_mllm_cli import main
from tests.processing.data.rendered_teacher import RenderedTeacher, room_pictures


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_013, num_views=8, height=84, width=112)


@pytest.fixture(scope="module")
def labels(room, tmp_path_factory):
    """The folder that labelling writes; the frames themselves are gone."""
    folder = tmp_path_factory.mktemp("labels")
    for number, picture in enumerate(room_pictures(room)):
        (folder / "hall").mkdir(exist_ok=True)
        picture.save(folder / "hall" / f"{number}.png")
    options = {"scale": 1.0, "image_size": 112, "views_per_row": 4, "progress": False}
    label_video(
        folder / "hall", folder / "out", RenderedTeacher(room), questions_per_clip={"farthest_view": 1}, **options
    )
    shutil.rmtree(folder / "hall")
    return folder


def test_scenes_of_a_labelled_video_are_asked_on_their_way_to_a_batch(room, labels, tiny_processor):
    rows = load_multiview("parquet", labels / "out", split="train", tasks=["scene"], cache_dir=str(labels / "cache"))
    assert set(rows["task"]) == {"scene"} and len(rows) == 2
    tasks = ("reconstruction", "point_match", "camera_path", "point_distance", "camera_distance")
    scenes = SceneQuestionDataset(rows, 12, tasks, num_views=3, questions_per_scene=2)
    items = [scenes[index] for index in range(12)]
    assert {question.question_type for item in items for question in item} == set(tasks)
    centers, points = room.camera_to_world[:, :3, 3], room.points_in_first_view()
    for question in (question for item in items for question in item):
        shown = [view.frame_id for view in question.views]
        assert shown == sorted(shown) and len(shown) == 3 and len({frame // 4 for frame in shown}) == 1  # one clip
        facts, kind = question.metadata["maker_facts"], question.question_type
        seen = [points[shown[mark.view], int(mark.xy[1]), int(mark.xy[0])] for mark in question.marks]
        if kind == "camera_path":
            before, after = (centers[shown[view]] for view in facts["views"])
            assert question.truth.number == pytest.approx(np.linalg.norm(after - before), abs=1e-3)
        elif kind == "point_distance":
            assert question.truth.number == pytest.approx(np.linalg.norm(seen[0] - seen[1]), abs=1e-3)
        elif kind == "reconstruction":  # in the camera of the first view shown
            pose = np.linalg.inv(room.camera_to_world[shown[0]]) @ room.camera_to_world[0]
            np.testing.assert_allclose(question.truth.items[0].numbers, (pose @ [*seen[0], 1])[:3], atol=1e-3)
    batch = SceneCollator(tiny_processor, for_pretraining=True, point_map_side=2)(items[:4])
    assert len(batch["scene_lengths"]) == 4 and batch["point_map_targets"].isfinite().any()


@pytest.mark.slow
def test_a_recipe_over_the_whole_folder_asks_scenes_and_keeps_stored_questions(
    labels, tmp_path, encoder_folder, capsys
):
    data = {"name": "parquet", "data_dir": str(labels / "out"), "cache_dir": str(tmp_path)}
    assert {*load_multiview(**data, split="train")["task"]} == {"scene", "spatial_qa"}
    recipe = yaml.safe_load(find_recipe("quickstart").read_text()) | {"data": data, "max_steps": 2}
    recipe |= {"collation": {"max_views": 4, "max_view_pixels": 96 * 64}, "dataloader_num_workers": 0}
    recipe |= {"dataloader_persistent_workers": False, "per_device_train_batch_size": 2, "logging_steps": 1}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(recipe))
    flags = ["--output_dir", str(tmp_path / "model"), "--geometry_encoder_path", str(encoder_folder)]
    flags += ["--use_cpu", "true", "--lr_scheduler_kwargs", '{"num_decay_steps": 1}']
    assert main(["train", str(tmp_path / "model.yaml"), *flags]) == 0
    assert capsys.readouterr().out.count("loss_text ") == 2
