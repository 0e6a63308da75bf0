"""Grounding in two stages: the frame that shows an object, then its box in that frame's camera.

A batch holds all questions about one set of views, so that it is encoded once; so is each set of the second stage.
Source: GAP-MLLM's evaluation of ScanRefer (arXiv:2603.16461). Differs: an answer without a usable frame means the
first view, where the reference stops at some; the second stage shows what is there of the frames beside the chosen
one, and never another frame in its place.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from ...processing.answers_gap_mllm import parse_frame
from ...processing.asking_gap_mllm import AnswerForm, Asker
from ...processing.data.answer_texts import read_description
from ...processing.data.scene_sample import SceneSample, View
from ...processing.prompts_gap_mllm import build_messages


STEP, REACH = 10, 90  # of frame numbers, forwards and backwards


def answer_in_two_stages(
    baseline: str,
    asker: Asker,
    forms: tuple[AnswerForm, AnswerForm],
    samples: Sequence[SceneSample],
    partner: SceneSample | None,
    batch_size: int,
) -> list[dict]:
    """Answer all questions about one set of views.

    Args:
        baseline (`str`): the name of a baseline but "constant", or "model".
        asker (`Asker`): the model.
        forms (`tuple[AnswerForm, AnswerForm]`): forms of frame and box.
        samples (`list[SceneSample]`): questions about equal views.
        partner (`SceneSample`, *optional*): question whose views give the geometry of "other_geometry".
        batch_size (`int`): chats of one call of generate().
    Returns:
        `list[dict]`: "id", "text" (of the box), "frame_text", "frame" (index into the views), and "frame_rejected",
        why the answer named no frame.
    """
    described = [read_description(sample) for sample in samples]
    views = list(samples[0].views[:1] if baseline == "first_view" else samples[0].views)
    others = None if partner is None else partner.views
    shown = [] if baseline == "blind" else views
    texts = ask_for_objects(asker, forms[0], "grounding_frame", shown, others, described, batch_size)
    records = []
    for sample, text in zip(samples, texts, strict=True):
        parsed = parse_frame(text, len(views))
        rejected = None if parsed.items else (parsed.rejected[0].reason if parsed.rejected else "no frame")
        records.append({"id": sample.id, "frame_text": text, "frame": parsed.first or 0, "frame_rejected": rejected})
    for frame in sorted({record["frame"] for record in records}):
        members = [place for place, record in enumerate(records) if record["frame"] == frame]
        shown = []
        if baseline != "blind":
            shown = views if baseline == "first_view" else views_around(samples[0], frame)
        asked = [described[place] for place in members]
        texts = ask_for_objects(asker, forms[1], "grounding_box", shown, others, asked, batch_size)
        for place, text in zip(members, texts, strict=True):
            records[place]["text"] = text
    return records


def two_stage_requests(
    forms: tuple[AnswerForm, AnswerForm], samples: Sequence[SceneSample]
) -> Iterator[tuple[str, AnswerForm, list[dict], list[View]]]:
    """Tell what `answer_in_two_stages` may ask about one set of views, whichever frames are answered.

    Args:
        forms (`tuple[AnswerForm, AnswerForm]`), samples (`list[SceneSample]`): arguments of `answer_in_two_stages`.
    Returns:
        Iterator of tuples: id, form, chat without pictures, and the views that it shows. Of the second stage those
        with the most views; others show a part of these.
    """
    views, choices = list(samples[0].views), {}
    for frame in range(len(views)):
        shown = views_around(samples[0], frame)
        choices.setdefault(tuple(sorted(view.size for view in shown)), shown)
    counts = {sizes: Counter(sizes) for sizes in choices}
    most = [choices[sizes] for sizes, own in counts.items() if not any(own < other for other in counts.values())]
    for sample in samples:
        description = read_description(sample)
        yield sample.id, forms[0], object_chat("grounding_frame", len(views), description), views
        for shown in most:
            yield sample.id, forms[1], object_chat("grounding_box", len(shown), description), shown


def ask_for_objects(
    asker: Asker,
    form: AnswerForm,
    task: str,
    views: Sequence[View],
    others: Sequence[View] | None,
    descriptions: Sequence[str],
    batch_size: int,
) -> list[str]:
    """Ask for several objects in the same views, which are encoded once.

    Args:
        asker (`Asker`), form (`AnswerForm`), batch_size (`int`): arguments of `answer_in_two_stages`, with one form.
        task (`str`): key of `DESCRIBED`.
        views (`list[View]`): views that are shown; none for a blind model.
        others (`list[View]`, *optional*): views that geometry is taken from instead.
        descriptions (`list[str]`): texts that name the objects.
    Returns:
        `list[str]`: one answer each.
    """
    pictures, encoded = [view.image for view in views], None
    if pictures:
        geometry = None
        if others is not None:  # as many pictures of the same sizes, of another scene
            taken = [others[place % len(others)].image for place in range(len(pictures))]
            pairs = zip(taken, pictures, strict=True)
            geometry = [[other.resize(own.size, Image.Resampling.BICUBIC) for other, own in pairs]]
        encoded = asker.encode([pictures], geometry)
    texts = []
    for start in range(0, len(descriptions), batch_size):
        chats = [object_chat(task, pictures, text) for text in descriptions[start : start + batch_size]]
        texts += asker.ask(chats, form, encoded, None if encoded is None else [0] * len(chats))
    return texts


def object_chat(task, pictures, description):
    if pictures:
        return build_messages(task, pictures, description=description)
    chat = build_messages(task, 1, description=description)
    for message in chat:  # blind: neither the picture nor the name of its frame
        message["content"] = [part for part in message["content"] if part["type"] == "text"]
        message["content"] = [part for part in message["content"] if part["text"] != "Frame-0: "]
    return chat


def views_around(sample: SceneSample, frame: int) -> list[View]:
    """The views of the second stage: the chosen one, then those 10, 20 .. 90 frames after and before it.

    They are looked for among the files beside the chosen picture, named by the number of their frame; without such
    files, or numbers, the other views of the sample follow in their order, those after the chosen one first.

    Args:
        sample (`SceneSample`), frame (`int`): index of the chosen view.
    Returns:
        `list[View]`: the chosen view first, at most 19.
    """
    chosen = sample.views[frame]
    path = chosen.picture.get("path") if isinstance(chosen.picture, dict) else None
    shifts = [*range(STEP, REACH + 1, STEP), *range(-STEP, -REACH - 1, -STEP)]
    if path is None or not Path(path).stem.isdecimal():
        rest = [*sample.views[frame + 1 :], *reversed(sample.views[:frame])]
        return [chosen, *rest[: len(shifts)]]
    path, found = Path(path), [chosen]
    number, width = int(path.stem), len(path.stem)
    for shift in shifts:
        file = path.with_name(f"{number + shift:0{width}d}{path.suffix}")
        if number + shift >= 0 and file.is_file():
            found.append(View(picture={"path": str(file), "bytes": None}))
    return found
