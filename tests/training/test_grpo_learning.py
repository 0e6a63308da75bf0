"""GRPO by the shipped recipe: answers about rooms never seen earn more than those of the model that it began with.

The settings of the recipe were chosen on rooms of the split "selection", with other seeds; these are of the split
"test".
"""

from pathlib import Path

import pytest
import torch
from transformers import HfArgumentParser

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import point_distance_reward
from gap_mllm.training.recipes import read_recipe
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.train_grpo import GrpoArguments, GrpoTrainingArguments, train_grpo


pytestmark = pytest.mark.slow

TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
NUM_ROOMS, NUM_ANSWERS, AT_ONCE = 192, 4, 16


@pytest.fixture(scope="module")
def rewards_of(tmp_path_factory):
    """A function (model) -> the mean reward of each room, of answers drawn at temperature 1 with the same numbers."""
    kinds = HfArgumentParser((GrpoArguments, GrpoTrainingArguments))
    recipe, _ = read_recipe(kinds, "tiny_grpo", ["--output_dir", str(tmp_path_factory.mktemp("recipe"))])
    processor, options = GapMllmProcessor.from_pretrained(TINY_MODEL), recipe.rewards["point_distance"]
    rooms = RenderedRooms("test", NUM_ROOMS, RoomVariety(**recipe.variety))
    questions = [sample for (sample,) in RoomQuestionDataset(rooms, RoomQuestions(**recipe.questions))]
    chats = [each.messages(each.marked_images(processor.cross_size), with_answer=False) for each in questions]
    points = [list(each.truth.items[0].numbers) for each in questions]
    drawn = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

    def measure(model):
        torch.manual_seed(0)
        earned = []
        for start in range(0, NUM_ROOMS, AT_ONCE):
            part = [place for place in range(start, start + AT_ONCE) for _ in range(NUM_ANSWERS)]
            with torch.no_grad():
                texts = processor.ask(model.eval(), [chats[place] for place in part], "reconstruction", **drawn)
            truth = [points[place] for place in part]
            earned += point_distance_reward(texts, truth, scale_m=options["scale_m"])
        return torch.tensor(earned).view(NUM_ROOMS, NUM_ANSWERS).mean(1)

    return measure


@pytest.fixture(scope="module")
def before(rewards_of):
    return rewards_of(GapMllmForConditionalGeneration.from_pretrained(TINY_MODEL))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_raises_its_reward_on_rooms_never_seen(seed, before, rewards_of, tmp_path):
    flags = ["--model_path", str(TINY_MODEL), "--output_dir", str(tmp_path), "--seed", str(seed)]
    flags += ["--num_selection_rooms", "0", "--eval_strategy", "no", "--eval_on_start", "false", "--use_cpu", "true"]
    after = rewards_of(train_grpo("tiny_grpo", flags).model)
    gain, error = (after - before).mean(), (after - before).std() / NUM_ROOMS**0.5
    print(f"seed {seed}: {before.mean():.3f} to {after.mean():.3f}, {gain:.3f} more, standard error {error:.3f}")
    assert gain > 3 * error  # 1 in 700 by chance
