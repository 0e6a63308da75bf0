"""A scene as one item: vLLM hashes, caches and schedules items, and a view's features depend on its whole scene."""

from vllm.model_executor.models.qwen3_vl import Qwen3VLMultiModalDataParser
from vllm.multimodal.parse import ModalityDataItems


class SceneItems(ModalityDataItems):
    """The one item of modality "image": all views of the prompt.

    Args:
        views (`list`): pictures as vLLM loaded them; None for those that a client names by uuid alone.
    """

    def __init__(self, views):
        super().__init__(views, "image")

    def get_count(self):
        return 1

    def get(self, index):
        """The pictures, or None where the scene must be in a cache.

        Raises:
            ValueError: where some of the views came and others did not.
        """
        if index:
            raise IndexError(index)
        views = [getattr(view, "media", view) for view in self.data]  # vLLM keeps the bytes beside a picture
        missing = [place for place, view in enumerate(views) if view is None]
        if missing and len(missing) < len(views):
            raise ValueError(
                f"Views {missing} of the scene came as uuids alone and the others as pictures. A scene is cached as a "
                "whole: send all of its pictures, or all of its uuids once it was sent."
            )
        return None if missing else views

    def get_item_for_hash(self, index):
        return list(self.data)

    def get_processor_data(self):
        views = self.get(0)
        if views is None:
            raise ValueError(
                "The views came as uuids alone, and their scene is in no cache. Send the pictures; vLLM keeps scenes "
                "only with mm_processor_cache_gb above 0."
            )
        return {"images": views}

    def get_passthrough_data(self):
        return {}


class SceneDataParser(Qwen3VLMultiModalDataParser):
    """vLLM's parser, which also takes `[views]`: what it gets when it parses the one item again."""

    def _parse_image_data(self, data):
        if isinstance(data, list) and len(data) == 1 and isinstance(data[0], list):
            return SceneItems(data[0])
        return super()._parse_image_data(data)
