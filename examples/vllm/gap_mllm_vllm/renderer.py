"""How prompts reach the engine: as ever, but for visual tokens that no picture came with."""

from collections.abc import Mapping

from vllm.renderers.hf import HfRenderer


class SceneRenderer(HfRenderer):
    """vLLM's renderer, which for GAP-MLLM refuses image and video tokens without pictures.

    vLLM asks a model's own processor only about prompts that come with pictures; others would run such tokens as text.
    """

    def _process_tokens(self, prompt, **options):
        self._check(prompt)
        return super()._process_tokens(prompt, **options)

    async def _process_tokens_async(self, prompt, **options):
        self._check(prompt)
        return await super()._process_tokens_async(prompt, **options)

    def _check(self, prompt: Mapping[str, object]) -> None:
        config = self.model_config.hf_config
        if config.model_type != "gap_mllm" or prompt.get("multi_modal_data"):
            return
        tokens = prompt["prompt_token_ids"]
        count = sum(tokens.count(token) for token in (config.image_token_id, config.video_token_id))
        if count:
            raise ValueError(
                f"The prompt has {count} image or video tokens, but no pictures came with it. Send the pictures, in "
                "the messages or as multi_modal_data, or leave the tokens out."
            )
