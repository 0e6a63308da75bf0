"""How much faster is an epoch that finds its geometry in the cache? `python examples/benchmarks/train_from_cache.py`.

Trains the shipped tiny model, around a deeper frozen encoder with random weights, for two epochs over the same rooms
in one process and thread. Prints steps a second of processor time, which other load on the machine hardly moves, of
both epochs, their ratio, the encoder's share of a step of the first (`--layers` changes it), and what was found.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from harness import benchmark_parser, figures_of, save, show
from transformers import TrainerCallback

from gap_mllm import GapMllmForPreTraining, GapMllmVggtModel
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import RoomVariety, load_multiview
from gap_mllm.training import FrozenGeometry, GeometryAlignedTrainer, GeometryAlignedTrainingArguments, SceneCollator
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"


class Clock(TrainerCallback):
    """Processor time from the end of one step to that of the next, and within the encoder."""

    def __init__(self, encoder: torch.nn.Module):
        self.steps, self.encoding, self.began, self.ended = [], 0.0, 0.0, 0.0
        encoder.register_forward_pre_hook(lambda *_: self._begin())
        encoder.register_forward_hook(lambda *_: self._end())

    def _begin(self):
        self.began = time.process_time()

    def _end(self):
        self.encoding += time.process_time() - self.began

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.ended, self.encoding = time.process_time(), 0.0

    def on_step_end(self, args, state, control, **kwargs):
        now = time.process_time()
        self.steps.append((now - self.ended, self.encoding))
        self.ended, self.encoding = now, 0.0


def main():
    parser = benchmark_parser(__doc__, runs=None)
    parser.add_argument("--rooms", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--layers", type=int, default=144, help="layers of the encoder, 4 or more")
    parser.add_argument("--where", choices=("loader", "model"), default="model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = GapMllmForPreTraining.from_pretrained(TINY_MODEL, dtype="float32")
    config = model.config.geometry_config
    config.num_hidden_layers = args.layers
    config.tap_layers = [args.layers * (tap + 1) // 4 - 1 for tap in range(4)]
    model.model.geometry = GapMllmVggtModel(config).requires_grad_(False)
    rooms = load_multiview("rendered_rooms", split="train", num_rooms=args.rooms, variety=RoomVariety())
    with tempfile.TemporaryDirectory() as folder:
        geometry = FrozenGeometry(model, args.where, cache_dir=f"{folder}/geometry")
        processor = GapMllmProcessor.from_pretrained(TINY_MODEL)
        clock = Clock(geometry.encoder or model.model.geometry)
        trainer = GeometryAlignedTrainer(
            model=model,
            args=GeometryAlignedTrainingArguments(
                folder,
                num_train_epochs=2,
                per_device_train_batch_size=args.batch,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_steps=args.rooms // args.batch,
            ),
            train_dataset=RoomQuestionDataset(rooms, RoomQuestions(counts={"reconstruction": 4})),
            data_collator=SceneCollator(processor, "block_mask", for_pretraining=True, geometry=geometry),
            callbacks=[clock],
        )
        trainer.train()
    half = len(clock.steps) // 2
    epochs = [[seconds for seconds, _ in part] for part in (clock.steps[1:half], clock.steps[half + 1 :])]
    share = statistics.median(encoding / seconds for seconds, encoding in clock.steps[1:half])
    rates = [entry["cache_hit_rate"] for entry in trainer.state.log_history if "cache_hit_rate" in entry]
    found = figures_of({"epoch 2": epochs[1], "epoch 1": epochs[0]})
    show(f"a step, of {half - 1} in each epoch", found, "ms", 1000)
    print(f"epoch 1: the encoder takes {share:.0%} of a step; scenes found {rates[0]:.0%}, in epoch 2 {rates[1]:.0%}")
    save(args.output, found)


if __name__ == "__main__":
    main()
