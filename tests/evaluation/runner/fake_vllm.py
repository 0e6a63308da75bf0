"""A stand-in for the package vllm, which is not installed here: it writes down how it is used, and answers "x"."""

import sys
from types import ModuleType, SimpleNamespace


class FakeVllm:
    """What was asked of it.

    Args:
        platform (`str`): device_type of its platform.
    """

    def __init__(self, platform="cpu"):
        self.events, self.engines, self.sampling, self.platform = [], [], [], platform
        self.finish_reason, self.token_ids, self.stop_at = "stop", [88], None

    def install(self, monkeypatch, engine_module):
        """Put it in the place of the package for a test, the plug-in with it."""
        vllm, platforms, distributed = (ModuleType(name) for name in ("vllm", "vllm.platforms", "vllm.distributed"))
        vllm.__path__ = []
        vllm.LLM, vllm.SamplingParams = self._start, self._sampling_params
        platforms.current_platform = SimpleNamespace(device_type=self.platform)
        distributed.cleanup_dist_env_and_memory = lambda: self.events.append("memory freed")
        for module in (vllm, platforms, distributed):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(engine_module, "check_vllm", lambda: None)
        monkeypatch.setattr("gap_mllm.evaluation.runner.run.check_vllm", lambda: None)
        return self

    def _sampling_params(self, **settings):
        self.sampling.append(settings)
        return settings

    def _start(self, model, **settings):
        if "no_such_option" in settings:
            raise TypeError("EngineArgs.__init__() got an unexpected keyword argument 'no_such_option'")
        self.engines.append({"model": model, **settings})
        self.events.append("started")
        core = SimpleNamespace(shutdown=lambda: self.events.append("core ended"))
        renderer = SimpleNamespace(shutdown=lambda: self.events.append("renderer ended"))
        return SimpleNamespace(
            generate=self._generate, llm_engine=SimpleNamespace(engine_core=core, renderer=renderer)
        )

    def _generate(self, prompts, sampling, use_tqdm):
        if self.stop_at == len([event for event in self.events if event == "started"]):
            raise RuntimeError("the engine died")
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=self.token_ids, finish_reason=self.finish_reason)])
            for _ in prompts
        ]
