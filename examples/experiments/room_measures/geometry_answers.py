"""Answers of a model about rooms with their own geometry, with that of the next room, and without any."""

from collections.abc import Sequence
from contextlib import nullcontext

from gap_mllm.processing.asking_gap_mllm import AnswerForm, Asker
from gap_mllm.processing.data.scene_sample import SceneSample
from gap_mllm.processing.prompts_gap_mllm import as_trained


OWN, OTHER, OFF = "model", "other_geometry", "geometry_off"
GEOMETRIES = (OWN, OTHER, OFF)


def answer_questions(
    asker: Asker, samples: Sequence[SceneSample], form: AnswerForm, geometry: str = OWN, batch_size: int = 16
) -> list[str]:
    """Answer questions greedily; pictures that questions of a batch share are encoded once.

    Args:
        asker (`Asker`): a model with its processor.
        samples (`list[SceneSample]`): questions; with another room's geometry about two rooms or more, whose views
            are alike in number and size.
        form (`AnswerForm`): where an answer ends.
        geometry (`str`, defaults to "model"): "model" for the right one, "other_geometry" for that of the next room,
            without its marks, "geometry_off" for none, which leaves plain Qwen3-VL.
        batch_size (`int`, defaults to 16): questions of one call of generate().
    Returns:
        `list[str]`: one answer each.
    """
    rooms = {sample.scene_id: sample for sample in samples}
    next_room = dict(zip(rooms, [*list(rooms)[1:], *list(rooms)[:1]], strict=True))
    texts = []
    with asker.model.geometry_disabled() if geometry == OFF else nullcontext():
        for start in range(0, len(samples), batch_size):
            chats, pictures, partners, places = [], {}, [], []
            for sample in (as_trained(each, asker.processor) for each in samples[start : start + batch_size]):
                key = sample.scene_id, repr(sample.marks)
                if key not in pictures:
                    pictures[key] = sample.marked_images(asker.processor.cross_size)
                    partners.append([view.image for view in rooms[next_room[sample.scene_id]].views])
                chats.append(sample.messages(pictures[key], with_answer=False))
                places.append(list(pictures).index(key))
            encoded = asker.encode(list(pictures.values()), partners if geometry == OTHER else None)
            texts += asker.ask(chats, form, encoded, places)
    return texts
