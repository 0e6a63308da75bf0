"""The table of metrics as `evaluate.Metric`s: names, words of the functions, examples, several processes."""

import doctest
import inspect
from concurrent.futures import ThreadPoolExecutor

import evaluate
import pytest

from gap_mllm.evaluation.metrics import METRICS, adapter, load_metric
from gap_mllm.evaluation.metrics.table import TABLE
from tests.evaluation.metrics.examples import GOOD


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_speaks_with_the_words_of_its_function(name):
    metric, text = load_metric(name), inspect.getdoc(TABLE[name].function)
    assert metric.name == name and text.startswith(metric.description) and metric.description.endswith(".")
    assert text.split("\nArgs:\n")[1] in metric.inputs_description and "prediction_ids" in metric.compute.__doc__
    assert "Returns:" in metric.inputs_description and "arXiv:" in metric.citation
    example = doctest.DocTestParser().get_doctest(metric.inputs_description, {}, name, None, 0)
    assert example.examples and f'load_metric("{name}")' in example.docstring
    assert doctest.DocTestRunner().run(example).failed == 0


def test_an_option_that_is_given_is_an_argument_of_the_function():
    prediction, reference = GOOD["frame_accuracy"]
    metric = load_metric("frame_accuracy")
    assert metric.compute(predictions=['{"frame": 4}'], references=[reference], tolerance=1)["accuracy"] == 1
    with pytest.raises(ValueError, match="unknown option 'frames' .*frame_accuracy; known are mode, tolerance, ids, "):
        metric.compute(predictions=[prediction], references=[reference], frames=[3])


def test_the_file_of_the_adapter_loads_as_a_script():
    prediction, reference = GOOD["mmsi"]
    metric = evaluate.load(adapter.__file__, "mmsi")
    assert metric.name == "mmsi" and metric.compute(predictions=[prediction], references=[reference])["overall"] == 1
    with pytest.raises(ValueError, match="unknown metric 'bleu'; known are blink, "):
        adapter.GapMllmMetric("bleu")


def test_metrics_combine_under_their_names():
    prediction, reference = GOOD["mmsi"]
    both = evaluate.combine([load_metric("mmsi"), load_metric("blink")], force_prefix=True)
    reference = {**reference, "task": "counting"}
    result = both.compute(predictions=[prediction], references=[reference])
    assert result["mmsi_overall"] == 1 and result["blink_overall"] == 1


def test_two_processes_share_their_rows(tmp_path):
    prediction, reference = GOOD["mmsi"]
    rows = {0: [prediction, "A"], 1: ["C"]}

    def work(rank):
        options = {"num_process": 2, "experiment_id": "two", "cache_dir": str(tmp_path), "timeout": 60}
        metric = load_metric("mmsi", process_id=rank, **options)
        metric.add_batch(predictions=rows[rank], references=[reference] * len(rows[rank]))
        return metric.compute()

    with ThreadPoolExecutor(2) as pool:  # files and locks are all that the two share
        result, nothing = pool.map(work, (0, 1))
    assert nothing is None and result["n"] == 3 and result["overall"] == pytest.approx(1 / 3)
