"""What a session saves: `OMP_NUM_THREADS=1 python examples/benchmarks/session.py`.

Asks questions about one set of views, each answered with the same number of tokens: each by a plain call of
`processor.ask`, all in one batch of it, one after the other in a `SceneSession`, and all at once there. Prints the
processor time of each way (wall-clock time on a GPU), opening the session included, as ratios, the median of several
runs that take turns; and whether all ways gave the same answers. `--frames` takes a folder of pictures in place of
rendered rooms, `--model` any model.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from harness import benchmark_parser, compare, save, show
from PIL import Image
from transformers import PreTrainedModel

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor, SceneSession, best_attn_implementation
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.processing.scene_views_gap_mllm import open_views


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
QUESTIONS = ("How many chairs are there?", "What stands at the wall?", "How wide is the table?", "Where is the bed?")


def room_views(count: int, width: int, height: int) -> list[Image.Image]:
    """Views of one rendered room."""
    variety = RoomVariety(sizes=((height, width),), size_shares=(1.0,), num_views=(count,), num_views_shares=(1.0,))
    return [view.image for view in RenderedRooms("test", 1, variety)[0].views]


def ways(
    model: PreTrainedModel, processor: GapMllmProcessor, views: list, questions: list[str], options: dict
) -> dict[str, Callable]:
    """The four ways to ask, each a function that returns the texts."""

    def chats():
        with SceneSession(model, processor, views) as scene:
            return [scene.messages(question) for question in questions]

    def session(ask):
        with SceneSession(model, processor, views) as scene:
            return [answer.text for answer in ask(scene)]

    return {
        "plain calls, one a question": lambda: [processor.ask(model, [chat], **options)[0] for chat in chats()],
        "one plain batch": lambda: processor.ask(model, chats(), **options),
        "session, one after the other": lambda: session(
            lambda scene: [scene.ask(question, **options) for question in questions]
        ),
        "session, all at once": lambda: session(lambda scene: scene.ask_many(questions, **options)),
    }


def main():
    parser = benchmark_parser(__doc__, runs=3)
    parser.add_argument("--model", default=TINY_MODEL, help="folder or repository")
    parser.add_argument("--frames", help="folder of pictures, or a video, in place of a rendered room")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), help="width and height of rendered views")
    parser.add_argument("--view-pixels", type=int, help="pixels of a view as the model gets it; default: the model's")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each answer")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = GapMllmForConditionalGeneration.from_pretrained(
        args.model, dtype=dtype, attn_implementation=best_attn_implementation(device, dtype)
    )
    model, processor = model.to(device).eval(), GapMllmProcessor.from_pretrained(args.model)
    if args.view_pixels:
        processor.image_processor.size = {"shortest_edge": args.view_pixels, "longest_edge": args.view_pixels}
    if args.frames:
        views = list(open_views(args.frames, max_views=args.views).pictures)
    else:
        views = room_views(args.views, *args.size)
    questions = [f"{QUESTIONS[place % len(QUESTIONS)]} ({place})" for place in range(args.questions)]
    options = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens}
    texts = {}

    def kept(name, ask):
        texts[name] = ask()

    asked = ways(model, processor, views, questions, options)
    variants = {name: partial(kept, name, ask) for name, ask in asked.items()}
    found = compare(variants, args.runs, _gpu_seconds if device == "cuda" else time.process_time)
    tokens = processor(images=views, text=processor.image_token * len(views))["image_grid_thw"].prod(-1).sum() // 4
    show(
        f"{args.questions} questions about {len(views)} views ({tokens} visual tokens), {args.tokens} tokens each",
        found,
    )
    plain = next(iter(texts))
    for name, given in texts.items():
        if given != texts[plain]:
            print(f"{name}: OTHER ANSWERS than {plain}")
    save(args.output, found)


def _gpu_seconds():
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
