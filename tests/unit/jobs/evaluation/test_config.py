import pytest
from pydantic import ValidationError

from jobs.evaluation.config import EvaluationConfig, GateConfig


@pytest.mark.parametrize("name", ["num_refs", "style_lora_steps"])
@pytest.mark.parametrize("values", [(4, 1), (2, 2), (0, 3)])
def test_lists_must_rise(name, values):
    with pytest.raises(ValidationError, match="rising positive numbers"):
        EvaluationConfig.model_validate({name: values})


def test_unknown_settings_are_refused():
    for model in (EvaluationConfig, GateConfig):
        with pytest.raises(ValidationError, match="num_stlyes"):
            model.model_validate({"num_stlyes": 3})


def test_sample_counts_follow_the_settings():
    config = EvaluationConfig(num_prompts=3, num_seeds=2, num_refs=(1, 2, 4))
    assert (config.images_per_style, config.max_refs) == (6, 4)
