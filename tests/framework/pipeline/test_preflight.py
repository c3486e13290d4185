from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsregen.framework.config.resolve import load_guidance
from lsregen.framework.errors import ConfigError
from lsregen.framework.layout.regions import Layout
from lsregen.framework.pipeline.pipeline import Pipeline

pytestmark = pytest.mark.slow

PROMPT = "a red circle and a blue square"
LAYOUT = Layout.from_boxes({"red circle": (0.1, 0.1, 0.4, 0.4)})
PICTURE = Image.fromarray(np.full((64, 64, 3), 90, np.uint8))


def test_a_layout_that_nothing_uses_is_said_so(pipeline: Pipeline, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("steps: 3\n")
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.engine"):
        pipeline(PROMPT, layout=LAYOUT, guidance={}, steps=1)
        assert not caplog.messages
        pipeline(PROMPT, layout=LAYOUT, steps=1)
        pipeline(PROMPT, layout=LAYOUT, guidance=empty, steps=1)
    assert caplog.messages == [
        "a layout without guidance changes nothing: pass guidance='layout-guidance', or {} if none is meant",
        f"the guidance {str(empty)!r} pulls nothing, and the model shapeworld-base does not see boxes: the layout changes "
        "nothing",
    ]


def test_boxes_left_to_a_model_that_does_not_see_them_are_refused(pipeline: Pipeline) -> None:
    message = "guidance 'gligen': it has no terms, as its model sees the boxes itself, and 'shapeworld-base' does not; "
    with pytest.raises(ConfigError, match=message):
        pipeline(PROMPT, layout=LAYOUT, guidance="gligen", steps=1)
    pipeline(PROMPT, layout=LAYOUT, guidance="none", steps=1)


def test_a_render_without_boxes_is_said_so(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    sets = ("guidance.small.extractor.source={model: shapeworld-base, steps: 1, size: [32, 32]}",)
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.engine"):
        pipeline(PROMPT, guidance="lsregen", steps=1, sets=sets)
    assert caplog.messages == ["source: no image has a box, so the picture that is rendered first has no layout to bring"]


def test_a_render_as_large_as_the_image_is_said_so(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    source = "guidance.small.extractor.source={{model: shapeworld-base, steps: 1, guidance: none{}}}"
    options: dict[str, Any] = {"layout": LAYOUT, "guidance": "lsregen", "steps": 1}
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.engine"):
        pipeline(PROMPT, **options, sets=(source.format(", size: [64, 64]"),))
        pipeline(PROMPT, **options, sets=(source.format(""),), size=(96, 96))
        assert not caplog.messages
        pipeline(PROMPT, **options, sets=(source.format(""),))
    assert caplog.messages == [
        "source: the picture of the model shapeworld-base is as large as the image, 64x64 pixels, so nothing is enlarged: load a "
        "larger model, such as the one that the preset names, or, if that is meant, set the source's size"
    ]


def test_a_render_whose_guidance_sees_no_boxes_is_said_so(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    source = "guidance.small.extractor.source={{model: shapeworld-base, steps: 1, size: [32, 32], guidance: {}}}"
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.engine"):
        for guidance in ("layout-guidance", "none"):
            pipeline(PROMPT, layout=LAYOUT, guidance="lsregen", steps=1, sets=(source.format(guidance),))
        assert not caplog.messages
        pipeline(PROMPT, layout=LAYOUT, guidance="lsregen", steps=1, sets=(source.format("attend-and-excite"),))
    assert caplog.messages == [
        "source: neither the model shapeworld-base nor its guidance looks at boxes, so its picture has no layout to bring"
    ]


def test_a_negative_prompt_without_classifier_free_guidance_is_said_so(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.engine"):
        pipeline(PROMPT, negative="a green star", steps=1)
        pipeline(PROMPT, steps=1, cfg=1)
        assert not caplog.messages
        pipeline(PROMPT, negative="a green star", steps=1, cfg=1)
    assert caplog.messages == ["at cfg 1 a negative prompt changes nothing: raise cfg, or leave the negative prompt out"]


def test_what_the_model_has_no_token_for_is_said_once(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    prompts = ["a 円形 circle and a ö star", "a pink circle", "a 円形 circle and a ö star"]
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.engine"):
        pipeline(prompts, steps=1, negative="a 星")
    assert caplog.messages == [
        "prompt 'a 円形 circle and a ö star': the model shapeworld-base has no token for '円形' and 'ö'; use other words for it",
        "negative prompt 'a 星': the model shapeworld-base has no token for '星'; use other words for it",
    ]


def test_boxes_left_to_a_model_and_not_given_are_said_so(caplog: pytest.LogCaptureFixture) -> None:
    gligen = Pipeline.load("shapeworld-gligen", device="cpu")
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.engine"):
        gligen(PROMPT, layout=LAYOUT, guidance="gligen", steps=1)
        gligen(PROMPT, guidance="none", steps=1)
        gligen(PROMPT, guidance={}, steps=1)
        gligen(PROMPT, steps=1)
        assert not caplog.messages
        gligen(PROMPT, guidance="gligen", steps=1)
        gligen(PROMPT, guidance=load_guidance("gligen"), steps=1)  # as the command line gives it
    assert caplog.messages == ["no image has a box, so the model shapeworld-gligen draws from the prompt alone"] * 2


def test_a_picture_entered_after_the_boxes_were_seen_is_said_so(caplog: pytest.LogCaptureFixture) -> None:
    gligen = Pipeline.load("shapeworld-gligen", device="cpu", grounding=0.3)
    with caplog.at_level("WARNING", logger="lsregen.framework.pipeline.engine"):
        gligen(PROMPT, layout=LAYOUT, steps=10, init_image=PICTURE, strength=0.8)
        gligen(PROMPT, steps=10, init_image=PICTURE, strength=0.2)
        assert not caplog.messages
        gligen(PROMPT, layout=LAYOUT, steps=10, init_image=PICTURE, strength=0.7)
    assert caplog.messages == [
        "image-to-image enters at step 3 of 10, and shapeworld-gligen sees the boxes in the first 3: the layout changes nothing; "
        "raise strength, or the model's option grounding"
    ]
