"""Checkpoints are folders to publish: with processor and code, whichever trainer wrote them."""

import pytest
import yaml
from transformers import Trainer, TrainingArguments

from gap_mllm.evaluation.runner.models import load_model
from gap_mllm.processing import build_tiny_processor
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.publishing_gap_mllm import AUTO_MAPS
from gap_mllm.training.recipes import find_recipe
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.scene_collator import SceneCollator
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from gap_mllm.training.train_geometry_encoder import train_geometry_encoder


ROOMS = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [1], "num_views_shares": [1.0]}
WHOLE = {name: AUTO_MAPS["gap_mllm"][name].split(".")[1] for name in ("AutoConfig", "AutoModel")}
WHOLE |= {"AutoModelForPreTraining": "GapMllmForPreTraining", "AutoProcessor": "GapMllmProcessor"}


@pytest.fixture(scope="module")
def plain_run(tiny_model, tiny_processor, tmp_path_factory):
    """A plain `Trainer` that keeps the best of two models; no processor was given to it."""
    folder = tmp_path_factory.mktemp("plain")
    rooms = RoomQuestionDataset(
        RenderedRooms("train", 4, RoomVariety(**ROOMS), 1), RoomQuestions({"reconstruction": 1})
    )
    arguments = TrainingArguments(
        str(folder / "run"),
        max_steps=2,
        per_device_train_batch_size=1,
        learning_rate=1e-3,
        remove_unused_columns=False,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    data = {"train_dataset": rooms, "eval_dataset": rooms, "data_collator": SceneCollator(tiny_processor)}
    trainer = Trainer(tiny_model(), arguments, **data)
    trainer.train()
    trainer.save_model(folder / "best")
    return folder


@pytest.fixture(scope="module")
def recipes(encoder_folder, tmp_path_factory):
    """Folders of `gap-mllm train` and `gap-mllm train-geometry-encoder`."""
    folder = tmp_path_factory.mktemp("recipes")
    recipe = yaml.safe_load(find_recipe("quickstart").read_text())
    recipe |= {"dataloader_num_workers": 0, "dataloader_persistent_workers": False, "frozen_geometry": {}}
    recipe |= {"variety": ROOMS, "per_device_train_batch_size": 1, "max_steps": 2, "save_steps": 1}
    recipe |= {"geometry_encoder_path": str(encoder_folder), "output_dir": str(folder / "quickstart")}
    (folder / "mine.yaml").write_text(yaml.safe_dump(recipe | {"disable_tqdm": True, "use_cpu": True}))
    train_geometry_aligned(str(folder / "mine.yaml"))
    flags = {"num_workers": 0, "persistent_workers": False}
    flags = [f"--dataloader_{name}={value}" for name, value in flags.items()]
    flags += ["--max_steps=1", "--per_device_train_batch_size=1", "--use_cpu=True", "--num_eval_scenes=0"]
    train_geometry_encoder("tiny_geometry_encoder", [*flags, f"--output_dir={folder / 'encoder'}"])
    return folder


@pytest.mark.slow
def test_every_checkpoint_and_output_loads_without_the_package(plain_run, recipes, load_without_package):
    folders = [*sorted((plain_run / "run").glob("checkpoint-*")), plain_run / "best", recipes / "quickstart"]
    assert [folder.name for folder in folders[:2]] == ["checkpoint-1", "checkpoint-2"]
    loaded = load_without_package(*folders, recipes / "encoder")
    for folder in folders[1:]:
        for name in (folder.name, f"{folder.name}_again"):
            assert loaded[name]["classes"] == WHOLE
            assert loaded[name]["numbers"][0] == pytest.approx(loaded[name]["numbers"][1], rel=1e-6)
        assert loaded[folder.name]["numbers"] == loaded[f"{folder.name}_again"]["numbers"]
    assert loaded["encoder"]["classes"].keys() == AUTO_MAPS["gap_mllm_vggt"].keys()
    assert loaded["quickstart"]["cross"] is not None


def test_checkpoints_are_loaded_and_asked_by_the_evaluation(plain_run, recipes, make_image):
    for folder in (plain_run / "run" / "checkpoint-1", recipes / "quickstart"):
        model, processor = load_model(folder, "cpu")
        chat = processor.build_messages("reconstruction", [make_image(64, 64)], [[0, 32, 32]])
        assert len(processor.ask(model, [chat], max_new_tokens=2)) == 1


def test_a_processor_that_is_not_the_models_is_refused_where_both_meet(
    make_pretraining_model, make_trainer, tmp_path, make_image
):
    model, other = make_pretraining_model(), build_tiny_processor(image_mean=[0.4, 0.5, 0.5])
    with pytest.raises(ValueError, match="image_mean.*the model expects"):
        make_trainer(model, [], SceneCollator(other, "block_mask", for_pretraining=True))
    with pytest.raises(ValueError, match="image_mean.*the model expects"):
        other.ask(model, [other.build_messages("reconstruction", [make_image()])])
