"""Load a folder where this package cannot be imported, as whoever downloads it will; run as a script.

Usage: stranger.py FOLDER. Writes one JSON object: classes of model and processor, and the number of parameters. Model
and processor together answer one token about a grey picture.
"""

import json
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path


class NoPackage(MetaPathFinder):
    """A finder in front of all others that finds no package of ours."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("gap_mllm", "gap_mllm_cli"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def load(folder: str) -> dict:
    """Load what a folder holds by the Auto classes, and ask it.

    Args:
        folder (`str`): folder of a model, of a part of one, or of adapters.
    Returns:
        `dict`: `model`, `parameters`, and `processor` where there is one.
    """
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype="auto")
    found = {"model": type(model).__name__, "parameters": sum(value.numel() for value in model.parameters())}
    if (Path(folder) / "processor_config.json").is_file():
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        found["processor"] = type(processor).__name__
        if hasattr(model, "generate"):
            picture = {"type": "image", "image": Image.new("RGB", (128, 128), "grey")}
            content = [picture, {"type": "text", "text": "What is this?"}]
            asked = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
            inputs = processor.apply_chat_template([{"role": "user", "content": content}], **asked)
            model.generate(**inputs, max_new_tokens=1)
    return found


if __name__ == "__main__":
    sys.meta_path.insert(0, NoPackage())
    sys.stdout.write(json.dumps(load(sys.argv[1])) + "\n")
