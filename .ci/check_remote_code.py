"""Load a published folder where this package is not installed, and ask it about a picture.

Usage: check_remote_code.py FOLDER. Needs torch, transformers and pillow only.
"""

import importlib.util
import sys

import torch
import transformers
from PIL import Image


def main(folder):
    if importlib.util.find_spec("gap_mllm") is not None:
        return "gap_mllm can be imported; this check is for places where it cannot."
    torch.set_num_threads(1)
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    views = [Image.effect_noise((128, 128), 50).convert("RGB") for _ in range(2)]
    inputs = processor.apply_chat_template(
        processor.build_messages("reconstruction", processor.apply_visual_prompt(views, [0, 64, 64])),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    answers = set()
    auto_map = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True).auto_map
    for name in sorted(set(auto_map) - {"AutoConfig"}):
        model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
        tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        answers.add(processor.batch_decode(tokens)[0])
        print(f"{name}: {type(model).__name__}")
    if len(answers) != 1:
        return f"The Auto classes answer differently: {sorted(answers)}"
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
