"""What stands beside the model in the same run: the same questions with less to go by.

The model and each baseline turn a batch of questions into texts; "constant" needs no model and is not here.
"""

from collections.abc import Sequence

from ...processing.asking_gap_mllm import AnswerForm, Asker
from ...processing.prompts_gap_mllm import as_trained
from .plan import view_set
from .questions import QuestionSet, question_messages


MODEL = "model"
BASELINES = {
    "blind": "no picture, the text only",
    "first_view": "the first view only, the answer wanted is the same",
    "other_geometry": "the right pictures with the geometry of another scene",
    "without_geometry": "a separately trained model without geometry",
    "constant": "one answer to all questions of a kind, no model",
}
DAMAGE_NOTE = (
    "Another scene's geometry, or switching geometry off in a model that was trained with it, shows what that model "
    "loses without it: damage, not benefit. Benefit is the distance to a model that was trained without geometry "
    "(--without-geometry)."
)


def answer_batch(
    baseline: str,
    asker: Asker,
    form: AnswerForm,
    questions: QuestionSet,
    ids: Sequence[str],
    partners: dict[str, str] | None = None,
) -> list[dict]:
    """Answer a batch of questions in one call of generate().

    Args:
        baseline (`str`): a key of `BASELINES` but "constant", or `MODEL`.
        asker (`Asker`), form (`AnswerForm`), questions (`QuestionSet`), ids (`list[str]`)
        partners (`dict[str, str]`, *optional*): question whose views give the geometry of "other_geometry", for each
            question.
    Returns:
        `list[dict]`: "id" and "text".
    """
    samples = [questions.sample(row_id, with_frames=baseline != "blind") for row_id in ids]
    samples = [as_trained(sample, asker.processor) for sample in samples]
    if baseline == "blind":
        texts = asker.ask([question_messages(sample, []) for sample in samples], form)
        return [{"id": row_id, "text": text} for row_id, text in zip(ids, texts, strict=True)]
    pictures, scenes, others = _view_sets(baseline, samples, questions, partners, asker.processor.cross_size)
    chats = [question_messages(sample, pictures[scene]) for sample, scene in zip(samples, scenes, strict=True)]
    texts = asker.ask(chats, form, asker.encode(pictures, others), scenes)
    return [{"id": row_id, "text": text} for row_id, text in zip(ids, texts, strict=True)]


def _view_sets(baseline, samples, questions, partners, cross_size):
    """Different sets of pictures of a batch, which of them each sample shows, and where geometry comes from."""
    pictures, scenes, others, known = [], [], [], {}
    for sample in samples:
        partner = partners[sample.id] if baseline == "other_geometry" else None
        key = view_set(sample), partner
        if key not in known:
            known[key] = len(pictures)
            images = sample.marked_images(cross_size)
            pictures.append(images[:1] if baseline == "first_view" else images)
            if partner is not None:
                others.append([view.image for view in questions.sample(partner, with_frames=True).views])
        scenes.append(known[key])
    return pictures, scenes, others or None
