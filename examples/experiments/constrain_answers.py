"""What a grammar and the removal of duplicates change: `python examples/experiments/constrain_answers.py MODEL`.

Asks a model for all objects of rooms of the selection split, freely and constrained, greedily and sampled, and prints
a table: share of answers that can be read whole, rejected objects and duplicates an answer, tokens, and time of a
token over that of the free answers. Answers are drawn one batch after the other, free and constrained in turn.
"""

import argparse
import time

import torch

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
from gap_mllm.processing.asking_gap_mllm import ANSWER_FORMS, Asker
from gap_mllm.processing.boxes import parse_boxes, remove_duplicates
from gap_mllm.processing.data import render_room, room_seed
from gap_mllm.processing.scores import read_detections


def measure(asker: Asker, num_rooms: int, batch_size: int, temperature: float, max_new_tokens: int, iou: float):
    """Return a row of the table for free and one for constrained answers, as dicts."""
    texts, seconds = {False: [], True: []}, {False: 0.0, True: 0.0}
    options = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    for start in range(0, num_rooms, batch_size):
        numbers = range(start, min(start + batch_size, num_rooms))
        views = [list(render_room(room_seed("selection", number)).images) for number in numbers]
        encoded = asker.encode(views)
        chats = [asker.processor.build_messages("detection3d", each) for each in views]
        for constrained in (False, True):
            torch.manual_seed(start)
            began = time.process_time()
            texts[constrained] += asker.ask(
                chats,
                ANSWER_FORMS["detection3d"],
                encoded,
                list(range(len(chats))),
                constrained=constrained,
                max_new_tokens=max_new_tokens,
                **options,
            )
            seconds[constrained] += time.process_time() - began
    rows = []
    for constrained, answers in texts.items():
        read = [parse_boxes(text, require_label=True) for text in answers]
        removed = [remove_duplicates(answer, iou) for answer in read]
        num_tokens = sum(len(ids) for ids in asker.processor.tokenizer(answers)["input_ids"])
        rows.append(
            {
                "constrained": constrained,
                "temperature": temperature,
                "whole": sum(map(_is_whole, answers)) / len(read),
                "rejected": sum(len(each.rejected) for each in read) / len(read),
                "duplicates": sum(len(a.items) - len(b.items) for a, b in zip(read, removed, strict=True)) / len(read),
                "tokens": num_tokens / len(read),
                "seconds_a_token": seconds[constrained] / num_tokens,
            }
        )
    return rows


def _is_whole(text):
    objects = read_detections(text)
    return not (objects.is_unparsed or objects.rejected or objects.truncated)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder or repository")
    parser.add_argument("--rooms", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0, 2.0], help="0 is greedy")
    parser.add_argument("--max-new-tokens", type=int, default=640)
    parser.add_argument("--iou", type=float, default=0.5, help="overlap of duplicates")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = GapMllmForConditionalGeneration.from_pretrained(args.model).eval()
    asker = Asker(model, GapMllmProcessor.from_pretrained(args.model))
    measure(asker, 1, 1, 0.0, 8, args.iou)  # the first call compiles the grammar
    print("| temperature | answers | whole | rejected | duplicates | tokens | time of a token |")
    print("| --- " * 7 + "|")
    for temperature in args.temperatures:
        rows = measure(asker, args.rooms, args.batch_size, temperature, args.max_new_tokens, args.iou)
        for row in rows:
            ratio = row["seconds_a_token"] / rows[0]["seconds_a_token"]
            kind = "constrained" if row["constrained"] else "free"
            counts = " | ".join(f"{row[name]:.2f}" for name in ("whole", "rejected", "duplicates", "tokens"))
            print(f"| {temperature:g} | {kind} | {counts} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
