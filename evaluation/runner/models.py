"""Load the model of a run, and say by a hash which one it was."""

import hashlib
from pathlib import Path


_HASHED = ("*.safetensors", "config.json", "generation_config.json", "*processor_config.json", "tokenizer*.json")
_HASHED += ("chat_template.*", "merges.txt", "vocab.json")


def model_folder(model_path) -> Path:
    """The local folder of a model: itself, or the snapshot of a repository of the Hub.

    Raises:
        FileNotFoundError: if it is neither.
    """
    folder = Path(model_path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no config.json; expected a folder of save_for_hub or convert.")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(model_path)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(f"{model_path} is neither a folder nor a repository that can be read.") from error


def model_fingerprint(folder) -> str:
    """Hash of a model's weights, settings and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _HASHED for path in Path(folder).glob(pattern)}):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def load_model(folder, device, dtype="auto"):
    """Return model and processor of a folder, in evaluation mode."""
    from ... import GapMllmForConditionalGeneration
    from ...processing import GapMllmProcessor

    model = GapMllmForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device).eval()
    return model, GapMllmProcessor.from_pretrained(folder)


__all__ = ["load_model", "model_fingerprint", "model_folder"]
