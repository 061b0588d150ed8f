"""What the test Hub refuses in a card, and what it lets pass."""

import pytest
from huggingface_hub import EvalResult, ModelCardData

from tests.hub import cards
from tests.hub.conftest import client, pushed, sent


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("license: [mit", "Invalid YAML"),
        ("- mit", "must be a mapping"),
        ("license: {name: mit}", '"license" must be a string or an array of strings'),
        ("tags: ddpm", '"tags" must be an array of strings'),
        ("model-index: x", '"model-index" must be an array of objects'),
        ("model-index: [{name: x, results: [{task: {type: t}}]}]", '"dataset" is required'),
        ("model-index: [{name: x, results: [{task: {type: t}, dataset: {name: d}}]}]", '"type" is required'),
    ],
)
def test_bad_card_is_refused_before_anything_is_sent(hub, folder, metadata, message):
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n# A model\n")
    api = client(hub)
    api.create_repo("ann/model")
    with pytest.raises(ValueError, match="Invalid metadata in README.md") as caught:
        api.upload_folder(repo_id="ann/model", folder_path=folder)
    assert message in str(caught.value)
    assert not sent(hub, "POST", "/preupload/")


def test_card_without_metadata_is_a_warning(hub, folder):
    (folder / "README.md").write_text("# A model\n")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        pushed(hub, folder)
    assert len(hub.commits("ann/model")) == 2


def test_card_of_huggingface_hub_passes():
    result = EvalResult(
        task_type="unconditional-image-generation",
        dataset_type="x",
        dataset_name="X",
        metric_type="fid",
        metric_value=0,
    )
    data = ModelCardData(license="mit", model_name="m", eval_results=[result], tags=["ddpm"])
    assert cards.check(f"---\n{data.to_yaml()}\n---\n# A model\n") == ([], [])
