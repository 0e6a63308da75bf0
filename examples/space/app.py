"""The Space: photos or a video in, a click, a task; answer, views, a scene in 3D and gate maps out.

Only the page is here; opening is in space_scenes.py, the model in space_answers.py. MODEL in the environment names
another model than the shipped one, POINTS_FROM what tells points and cameras.
"""

import ctypes
import logging
import shutil
import tempfile
from collections import deque
from pathlib import Path


try:  # before there are threads: of glibc each would keep what it freed for itself, of requests that take turns
    ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX
except (OSError, TypeError, AttributeError):  # another C library
    pass

try:
    from spaces import GPU  # before torch, as ZeroGPU wants it
except ImportError:

    def GPU(function):  # noqa: N802
        return function


import gradio as gr
from space_answers import (
    FIND_ALL,
    FIND_ONE,
    QUESTION,
    TASKS,
    WHAT,
    Request,
    SceneGuide,
    answer_picture,
    answer_text,
    as_markdown,
    check_request,
    clicked_pixel,
    gate_picture,
    marked_view,
    write_scene_glb,
)
from space_scenes import MAX_MEGABYTES, VisitorError, example_rooms, open_upload


logger = logging.getLogger("gap_mllm.space")
GUIDE, ROOMS = SceneGuide(), example_rooms()
QUEUE_SIZE, NUM_FOLDERS = 32, 64  # visitors who wait, and folders of results that are kept
FOLDERS, PROGRESS = deque(), gr.Progress()
INTRO = """# Ask a scene in metres
Add photos of one place (or a short video), or take an example room. Click into a view and ask what is there; the
model names it and tells where it is, in metres from the camera of the first view."""
TINY = """The model that runs here is a tiny one, trained on rendered rooms: its answers about photographs are poor.
`MODEL` in the environment names another."""
HINTS = {
    WHAT: "Click into the large picture, then ask.",
    FIND_ALL: "All objects with their boxes.",
    FIND_ONE: "Describe one object, as *the red chair*.",
    QUESTION: "Ask anything about the scene.",
}


@GPU
def look(scene):
    return GUIDE.look(scene)


@GPU
def answer(scene, request):
    return GUIDE.answer(scene, request)


@GPU
def stream(scene, request):
    yield from GUIDE.stream(scene, request)


def say(error, count, place):
    """What went wrong, as a note and where answers stand; of the other outputs all stay as they are."""
    text = str(error)
    if not isinstance(error, VisitorError):
        logger.error("a request failed", exc_info=error)
        text = (
            f"This went wrong here ({type(error).__name__}), not with what you did. The scene is still open; try "
            "another question, or fewer and smaller photos."
        )
    gr.Warning(text, title="")
    shown = [gr.skip()] * count
    shown[place] = as_markdown(text)
    return shown


def new_folder():
    """A folder for results; the oldest are removed."""
    while len(FOLDERS) >= NUM_FOLDERS:
        shutil.rmtree(FOLDERS.popleft(), ignore_errors=True)
    FOLDERS.append(tempfile.mkdtemp(prefix="gap_mllm_space_"))
    return Path(FOLDERS[-1])


def show_scene(scene, progress):
    """What the page shows of a scene that was just opened."""
    progress(0.3, desc="Encoding views")
    seen = look(scene)
    progress(0.8, desc="Drawing")
    folder = new_folder()
    glb, _ = write_scene_glb(seen[0], None, folder / "scene.glb")
    gates = gate_picture(seen[2], scene, folder / "gates.png", GUIDE.gate_meaning)
    labels = [f"view {index}: {name}" for index, name in enumerate(scene.names)]
    views = list(zip(scene.pictures, labels, strict=True))
    told = "\n\n".join([f"{len(scene.pictures)} views are open. Choose a task and ask.", *scene.notes])
    return scene, seen, 0, None, views, marked_view(scene, 0, None), told, None, glb, "", gates


def open_files(files, progress=PROGRESS):
    try:
        progress(0.1, desc="Opening")
        return show_scene(open_upload(files), progress)
    except Exception as error:  # whatever it is, the page goes on; so below
        return say(error, 11, 6)


def open_room(chosen: gr.SelectData, progress=PROGRESS):
    try:
        return show_scene(ROOMS[chosen.index], progress)
    except Exception as error:
        return say(error, 11, 6)


def choose_view(scene, mark, chosen: gr.SelectData):
    return chosen.index, marked_view(scene, chosen.index, mark)


def click(scene, view, place: gr.SelectData):
    try:
        mark = clicked_pixel(scene, view, place.index)
        return mark, marked_view(scene, view, mark), gr.skip()
    except Exception as error:
        return say(error, 3, 2)


def ask(scene, seen, mark, task, words, progress=PROGRESS):
    try:
        request = Request(task, mark, words or "")  # None of a field that was never shown
        check_request(scene, request)
        progress(0.2, desc="The model is answering")
        if task == QUESTION:
            for found in stream(scene, request):
                if isinstance(found, str):
                    yield as_markdown(found), gr.skip(), gr.skip(), found
        else:
            found = answer(scene, request)
        progress(0.8, desc="Drawing")
        glb, left_out = write_scene_glb(seen[0], found, new_folder() / "scene.glb")
        yield answer_text(found, left_out), answer_picture(found, seen[1]), glb, found.text
    except Exception as error:
        yield say(error, 4, 0)


def choose_task(task):
    return gr.Textbox(visible=task in (FIND_ONE, QUESTION)), HINTS[task]


def build_page():
    """The page, whose events of the model wait for each other."""
    model = {"concurrency_id": "model", "concurrency_limit": 1}
    with gr.Blocks(title="Ask a scene in metres", delete_cache=(600, 3600), analytics_enabled=False) as page:
        scene = gr.State(None, time_to_live=3600, delete_callback=GUIDE.forget)
        seen = gr.State(None, time_to_live=3600)
        view, mark = gr.State(0), gr.State(None)
        gr.Markdown(INTRO if not GUIDE.is_tiny else f"{INTRO} {TINY}")
        with gr.Row():
            with gr.Column(scale=2):
                files = gr.File(
                    label="Photos of one place, or a video", file_count="multiple", file_types=["image", "video"],
                    height=140, elem_id="files",
                )  # fmt: skip
                rooms = gr.Gallery(
                    [(room.pictures[0], f"room {number}") for number, room in enumerate(ROOMS, 1)],
                    label="or an example room", columns=3, height=190, allow_preview=False, elem_id="rooms",
                )  # fmt: skip
                task = gr.Radio(TASKS, value=WHAT, label="Task", elem_id="task")
                hint = gr.Markdown(HINTS[WHAT])
                words = gr.Textbox(label="Words", visible=False, elem_id="words")
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                said = gr.Markdown("", elem_id="answer", container=True, label="Answer", show_label=True)
            with gr.Column(scale=3):
                large = gr.Image(
                    label="Click into a view", type="pil", format="png", interactive=False, height=440,
                    buttons=[], elem_id="large",
                )  # fmt: skip
                views = gr.Gallery(
                    label="Views", columns=8, rows=1, height=190, allow_preview=False, elem_id="views"
                )  # fmt: skip
        with gr.Tabs():
            with gr.Tab("Scene in 3D"):
                glb = gr.Model3D(label="Points, cameras and what was found", height=480, elem_id="glb")
            with gr.Tab("Annotated views"):
                drawn = gr.Image(label="What was found", format="png", interactive=False, elem_id="drawn")
            with gr.Tab("Raw text"):
                raw = gr.Textbox(label="What the model wrote", lines=8, elem_id="raw")
            with gr.Tab("Gate maps"):
                gates = gr.Image(label="What the fusion takes from geometry", interactive=False, elem_id="gates")
        shown = [scene, seen, view, mark, views, large, said, drawn, glb, raw, gates]
        files.upload(open_files, files, shown, **model)
        rooms.select(open_room, None, shown, **model)
        views.select(choose_view, [scene, mark], [view, large])
        large.select(click, [scene, view], [mark, large, said])
        task.change(choose_task, task, [words, hint])
        for event in (button.click, words.submit):
            event(ask, [scene, seen, mark, task, words], [said, drawn, glb, raw], **model)
    return page.queue(max_size=QUEUE_SIZE)


page = build_page()

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    page.launch(max_file_size=f"{MAX_MEGABYTES}mb", state_session_capacity=64)
