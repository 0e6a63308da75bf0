"""Videos of VSI-Bench beside this file, as `<dataset>/<scene_name>.mp4`; all else is lmms-eval's own task."""

from pathlib import Path

from lmms_eval.tasks.vsibench.utils import vsibench_doc_to_text


def doc_to_visual(doc):
    """Return the path of a question's video in a list. Raises FileNotFoundError if there is none."""
    folder = Path(__file__).absolute().parent
    video = folder / doc["dataset"] / f"{doc['scene_name']}.mp4"
    if not video.is_file():
        raise FileNotFoundError(f"{video} does not exist; unpack the videos of VSI-Bench below {folder}.")
    return [str(video)]


def doc_to_messages(doc, lmms_eval_specific_kwargs=None):
    """Return the chat of a question: its video, then lmms-eval's prompt."""
    content = [{"type": "video", "url": path} for path in doc_to_visual(doc)]
    content.append({"type": "text", "text": vsibench_doc_to_text(doc, lmms_eval_specific_kwargs)})
    return [{"role": "user", "content": content}]
