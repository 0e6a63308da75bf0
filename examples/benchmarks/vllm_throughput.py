"""Throughput of vLLM beside transformers: `.venv-vllm/bin/python examples/benchmarks/vllm_throughput.py`.

Asks as many prompts as told, each about the views of a room of its own, once by batches of `processor.ask` and once by
one engine with the plug-in of examples/vllm, in turns within one run: prompts a second by wall clock, their ratio, and
how many greedy texts are the same. Start-up of the engine is told apart.
"""

import os
import time
from functools import partial
from pathlib import Path

from harness import benchmark_parser, compare, save, show

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
from gap_mllm.processing.data import RenderedRooms, RoomVariety


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
QUESTION = "Detect all objects as 3D boxes in JSON."


def main():
    parser = benchmark_parser(__doc__, runs=3)
    parser.add_argument("--model", default=TINY_MODEL, help="folder or repository")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer at most")
    parser.add_argument("--batch-size", type=int, default=16, help="of transformers, and the engine's most at once")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # one process, as transformers has
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    variety = RoomVariety(num_views=(args.views,), num_views_shares=(1.0,))
    rooms = RenderedRooms("test", 2 * args.prompts, variety)
    processor = GapMllmProcessor.from_pretrained(args.model)
    model = GapMllmForConditionalGeneration.from_pretrained(args.model, dtype=args.dtype).eval()
    started = time.perf_counter()
    engine = LLM(
        str(args.model), dtype=args.dtype, max_model_len=2048, max_num_seqs=args.batch_size, enforce_eager=True,
        limit_mm_per_prompt={"image": args.views, "video": 0}, seed=0, enable_prefix_caching=False,
        mm_processor_cache_gb=0, distributed_executor_backend="uni", disable_log_stats=True,
    )  # fmt: skip
    print(f"the engine started in {time.perf_counter() - started:.0f} s")
    sampling = SamplingParams(temperature=0, max_tokens=args.tokens)
    length = {"max_new_tokens": args.tokens}

    def by_transformers(chats):
        batches = [chats[first : first + args.batch_size] for first in range(0, len(chats), args.batch_size)]
        return [text for batch in batches for text in processor.ask(model, batch, **length)]

    def by_vllm(chats):
        asked = []
        for chat in chats:
            pictures = [part["image"] for part in chat[-1]["content"] if part["type"] == "image"]
            prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            asked.append({"prompt": prompt, "multi_modal_data": {"image": pictures}})
        return [output.outputs[0].text for output in engine.generate(asked, sampling, use_tqdm=False)]

    chats = []
    for index in range(2 * args.prompts):
        views = [{"type": "image", "image": view.image} for view in rooms[index].views]
        chats.append([{"role": "user", "content": [*views, {"type": "text", "text": QUESTION}]}])
    warm, chats = chats[args.prompts :], chats[: args.prompts]
    texts = {}
    for ask in (by_transformers, by_vllm):
        ask(warm[:4])

    def kept(name, ask):
        texts[name] = ask(chats)

    variants = {"vLLM": partial(kept, "vLLM", by_vllm), "transformers": partial(kept, "transformers", by_transformers)}
    found = compare(variants, args.runs, time.perf_counter, warm_up=0)
    show(f"{len(chats)} prompts", found)
    for name, of in found.items():
        print(f"{name}: {len(chats) / of['median']:.1f} prompts/s")
    same = sum(one == other for one, other in zip(texts["transformers"], texts["vLLM"], strict=True))
    print(f"{same} of {len(chats)} texts are the same")
    save(args.output, found)


if __name__ == "__main__":
    main()
