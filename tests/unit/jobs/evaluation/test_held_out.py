from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from i2l_model.errors import InputError
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.held_out import choose_held_out
from jobs.evaluation.held_out_images import TestImages, read_test_images
from tests.grid_pairs import SEED, write_grid_pairs

CONFIG = EvaluationConfig(num_styles=6, num_prompts=4, num_seeds=2, loss_num_targets=3)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_grid_pairs(tmp_path_factory.mktemp("pairs"))


def read(folder: Path) -> TestImages:
    return read_test_images(str(folder), num_styles=2, max_pairs_per_style=9, seed=0)


def test_prompts_references_and_targets_share_no_content(pairs):
    held_out = choose_held_out(pairs, CONFIG)
    assert len(held_out.styles) == 6
    for style in held_out.styles:
        asked = {prompt.subject for prompt in style.prompts}
        shown = {image.subject for image in style.references}
        assert (len(asked), len(shown)) == (4, 4)
        assert not asked & shown
        assert not asked & {image.subject for image in style.wrong_references}
        assert not shown & {image.subject for image in style.targets}
        assert not {i.key for i in style.references} & {i.key for i in style.wrong_references}
        assert len(style.targets) == 3


def test_oracles_are_of_the_references_style(pairs):
    held_out = choose_held_out(pairs, CONFIG)
    assert held_out.has_oracle
    for style in held_out.styles:
        for prompt in style.prompts:
            assert prompt.grid.style == style.name
            assert prompt.grid.content == prompt.subject


def test_choice_depends_on_pairs_and_seed_only(pairs):
    first = choose_held_out(pairs, CONFIG)
    assert choose_held_out(pairs, CONFIG) == first
    faster = choose_held_out(pairs, CONFIG.model_copy(update={"num_workers": 0, "batch_size": 3}))
    assert faster.content_hash == first.content_hash
    for change in ({"seed": 1}, {"num_inference_steps": 3}, {"num_styles": 5}):
        other = choose_held_out(pairs, CONFIG.model_copy(update=change))
        assert other.content_hash != first.content_hash


def test_every_sample_has_its_own_noise(pairs):
    seeds = [
        seed
        for style in choose_held_out(pairs, CONFIG).styles
        for prompt in style.prompts
        for seed in prompt.seeds
    ]
    assert len(set(seeds)) == len(seeds) == 6 * 4 * 2


def test_wrong_references_are_of_another_style(pairs):
    for style in choose_held_out(pairs, CONFIG).styles:
        (name,) = {image.label.style for image in style.wrong_references}
        assert name != style.name


def test_held_out_contents_take_half_of_the_prompts(pairs):
    names = ("umbrella", "cloud", "car")
    config = CONFIG.model_copy(update={"held_out_contents": names})
    for style in choose_held_out(pairs, config).styles:
        unseen = [p for p in style.prompts if p.subject in names]
        assert len(unseen) == 2
        assert all(prompt.grid.content in prompt.prompt for prompt in unseen)
    config = CONFIG.model_copy(update={"held_out_contents": ("dragon",)})
    with pytest.raises(InputError, match="held_out_contents"):
        choose_held_out(pairs, config)


def test_unlabelled_pictures_have_no_oracle_and_keep_their_mined_style(tmp_path):
    held_out = choose_held_out(write_grid_pairs(tmp_path, labelled=False), CONFIG)
    assert not held_out.has_oracle
    assert all(style.name.startswith("component-") for style in held_out.styles)


def test_images_that_serve_training_pairs_are_left_out(tmp_path):
    pairs = write_grid_pairs(tmp_path, labelled=False, train=[101])
    held_out = choose_held_out(pairs, CONFIG)
    assert held_out.num_shared_keys == 6
    assert "component-101" not in {style.name for style in held_out.styles}


def test_images_of_another_shard_with_the_same_keys_are_kept(tmp_path):
    pairs = write_grid_pairs(tmp_path, labelled=False, train=[101])
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    for row in rows:
        if row["split"] == "train":
            row["target_shard"] = "corpus-00001.tar"
            row["ref_shards"] = ["corpus-00001.tar"] * len(row["ref_keys"])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "index.parquet")
    held_out = choose_held_out(pairs, CONFIG)
    assert held_out.num_shared_keys == 0
    assert "component-101" in {style.name for style in held_out.styles}


def test_styles_of_too_few_references_are_the_last_choice_and_counted(tmp_path):
    pairs = write_grid_pairs(tmp_path, labelled=False, test=range(100, 103), train=[])
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    row = next(row for row in rows if row["style_id"] == "component-100")
    shown = {"ref_keys": row["ref_keys"][:3], "ref_shards": row["ref_shards"][:3]}
    rows.append({**row, **shown, "pair_id": "seen", "split": "train"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "index.parquet")
    every = choose_held_out(pairs, CONFIG.model_copy(update={"num_styles": 3}))
    assert every.styles[-1].name == "component-100"
    assert [len(style.references) for style in every.styles] == [4, 4, 1]
    assert every.num_short_styles == 1
    best = choose_held_out(pairs, CONFIG.model_copy(update={"num_styles": 2}))
    assert best.num_short_styles == 0


def test_two_shards_with_the_same_keys_mix_no_pictures(tmp_path):
    write_grid_pairs(tmp_path, labelled=False, test=[100], train=[])
    ((_, images),) = read(tmp_path).styles.items()
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    rows[1]["target_key"] = rows[0]["target_key"]
    rows[1]["target_shard"] = "corpus-00001.tar"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "index.parquet")
    ((_, mixed),) = read(tmp_path).styles.items()
    assert {image.data for image in mixed} == {image.data for image in images}
    assert len({image.key for image in mixed}) == len(images) - 1


def test_styles_seen_in_training_are_left_out_though_their_images_differ(tmp_path: Path):
    pairs = write_grid_pairs(tmp_path, train=[100, 101])
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    for row in rows:
        if row["split"] == "train":
            row["target_key"], row["ref_keys"] = "other", ["another"]
            row["ref_shards"] = row["ref_shards"][:1]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "index.parquet")
    held_out = choose_held_out(pairs, CONFIG)
    assert held_out.num_seen_styles == 2
    names = {style.name for style in held_out.styles}
    assert names == {f"grid-{SEED}-{number}" for number in range(102, 106)}


def test_too_few_styles_are_refused(tmp_path):
    pairs = write_grid_pairs(tmp_path, test=[100])
    with pytest.raises(InputError, match="needs at least 2"):
        choose_held_out(pairs, CONFIG)
