"""One typed tree: defaults, the first system's keys, and every problem at once in a person's words."""

from pathlib import Path

import pytest

from ray_jobs.errors import SettingsError
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.training_arguments import REFUSED, TrainingArguments
from ray_jobs.yaml_source import read_yaml

CONFIG = Path(__file__).resolve().parent.parent / "config"


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_the_shipped_config_states_the_defaults() -> None:
    assert load_config_with_defaults(CONFIG / "config.yaml") == Settings()


def test_the_shipped_config_names_every_key() -> None:
    """Comments beside them say what they mean."""

    def keys(values: dict, prefix: str = "") -> set[str]:
        inner = [keys(value, f"{prefix}{key}.") for key, value in values.items() if isinstance(value, dict)]
        return {f"{prefix}{key}" for key in values}.union(*inner)

    assert keys(read_yaml(CONFIG / "config.yaml").values) == keys(Settings().as_dict())


def test_the_flat_keys_of_the_first_system_are_read(tmp_path: Path) -> None:
    text = """
    yolo_data_dir: /data
    output_dir: out
    weights_dir: w
    model_name: yolo12s.pt
    epochs: 50
    batch_size: 0.6
    img_size: 512
    device: [0, 1]
    workers: 4
    seed: 3
    patience: 10
    hsv_h: 0.1
    hsv_s: 0.2
    hsv_v: 0.3
    translate: 0.2
    scale: 0.4
    fliplr: 0.5
    mosaic: 0.5
    auto_augment: randaugment
    erasing: 0.4
    """
    settings = load_config_with_defaults(write(tmp_path, text))
    assert (settings.model_name, settings.batch_size, settings.device) == ("yolo12s", 0.6, [0, 1])
    assert settings.warnings() == [
        "auto_augment: has no effect: Ultralytics uses it for classification only",
        "erasing: has no effect: Ultralytics uses it for classification only",
    ]


def test_x_rays_are_not_flipped_or_coloured_by_default() -> None:
    settings = Settings()
    assert (settings.fliplr, settings.flipud, settings.hsv_h, settings.hsv_s, settings.bgr) == (0, 0, 0, 0, 0)


def test_all_problems_are_reported_at_once_with_place_value_and_remedy(tmp_path: Path) -> None:
    path = write(tmp_path, "epochs: 0\nimg_sz: 320\nseed: a\ncluster:\n  num_workers: -1\n  adress: x\nbatch: 16\n")
    with pytest.raises(SettingsError) as caught:
        load_config_with_defaults(path, ["workers=1.5", "nonsense", "lr0=abc"])
    assert set(caught.value.problems) == {
        f"{path}:1: epochs: must be at least 1, got 0",
        f"{path}:2: img_sz: unknown key; did you mean img_size?",
        f"{path}:3: seed: must be a whole number, got 'a'",
        f"{path}:5: cluster.num_workers: must be auto, a whole number of at least 1, or a range such as [1, 4], got -1",
        f"{path}:6: cluster.adress: unknown key in cluster; did you mean cluster.address?",
        f"{path}:7: batch: not a setting here: call it batch_size",
        "command line: workers: must be a whole number, got 1.5",
        "command line: 'nonsense': must be key=value, such as epochs=50 or cluster.num_workers=2",
        "command line: lr0: must be a number, got 'abc'",
    }


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs=true", "whole number"),
        ("lr0=.nan", "must be"),
        ("img_size=100", "multiple of 32"),
        ("precision=fp8", "one of 'auto', 'fp32', 'bf16' or 'fp16'"),
        ("device=[0,0]", "different GPU numbers"),
        ("device=gpu", "must be auto, cpu"),
        ("batch_size=1.5", "share of GPU memory between 0 and 1"),
        ("batch_size=0", "whole number of images"),
        ("model_name=yolo11n", "must be one of yolo12n"),
        ("pretrained=3", "must be true, false, or the path"),
        ("run_name=../x", "letters, digits"),
        ("tracking.registry=a/b", "must be a name"),
        ("cluster=3", "section"),
        ("cluster.num_workers=[4,2]", "range such as"),
        ("data_check.allow=[nothing]", "one of 'duplicate_images'"),
    ],
)
def test_a_wrong_value_is_refused(override: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_config_with_defaults(None, [override])
    assert words in str(caught.value)
    assert override.split("=")[0].split(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["device=cpu", "precision=fp16"], "fp16 needs a GPU"),
        (["device=[0,1]", "cluster.num_workers=3"], "make them agree"),
        (["device=cpu", "cluster.gpus_per_worker=1"], "must be 0 with device: cpu"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_config_with_defaults(None, overrides)


def test_a_run_can_be_repeated_from_its_settings_file(tmp_path: Path) -> None:
    overrides = ["lr0=1e-3", "device=[0,1]", "cluster.num_workers=[1,2]", "batch_size=0.5", "tracking.tags.site=a"]
    settings = load_config_with_defaults(None, overrides)
    settings.save(tmp_path / "settings.yaml")
    assert load_config_with_defaults(tmp_path / "settings.yaml") == settings


def test_differences_name_what_would_make_another_model() -> None:
    other = load_config_with_defaults(None, ["epochs=3", "cluster.num_workers=2", "run_name=x"])
    assert Settings().differences(other) == ["epochs: 100, 3"]


def test_every_training_argument_of_ultralytics_is_known_here() -> None:
    """An upgrade that brings a new training argument must decide whether it is accepted or refused."""
    from ray_jobs.detector.process import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.cfg import DEFAULT_CFG_DICT

    # What has no say in training a detector: choosing and showing predictions, exporting, tracking in videos.
    elsewhere = {
        "data", "epochs", "patience", "device", "workers", "pretrained", "seed", "cfg",
        "save_json", "conf", "dnn", "nms", "source", "vid_stride", "stream_buffer", "visualize", "augment",
        "agnostic_nms", "retina_masks", "embed", "show", "save_frames", "save_txt", "save_conf", "save_crop",
        "show_labels", "show_conf", "show_boxes", "line_width", "format", "optimize", "dynamic", "simplify", "opset",
        "workspace", "tracker", "auto_augment", "erasing",
    }  # fmt: skip
    known = set(TrainingArguments.model_fields) | set(REFUSED) | elsewhere
    assert set(DEFAULT_CFG_DICT) - known == set()
    assert set(TrainingArguments.model_fields) - set(DEFAULT_CFG_DICT) == set()
    plain = {name: DEFAULT_CFG_DICT[name] for name in TrainingArguments.model_fields}
    changed = {name for name, value in plain.items() if getattr(Settings(), name) != value}
    assert changed == {"nbs", "hsv_h", "hsv_s", "fliplr"}  # and why: training_arguments.py


def test_a_bucket_is_no_path_and_the_place_of_copies_makes_no_other_model(tmp_path: Path) -> None:
    places = ["storage.data_cache=copies", "storage.url=stored", "retrain.replay_data=old/data.yaml"]
    settings = load_config_with_defaults(None, ["data=s3://xrays/chest/data.yaml", *places])
    absolute = settings.with_absolute_paths()
    assert absolute.data == "s3://xrays/chest/data.yaml"
    assert absolute.storage.data_cache == str(Path("copies").resolve())
    assert absolute.storage.url == str(Path("stored").resolve())
    assert absolute.retrain.replay_data == str(Path("old/data.yaml").resolve())
    assert load_config_with_defaults(None, ["storage.url=s3://x/y"]).with_absolute_paths().storage.url == "s3://x/y"
    assert Settings().with_absolute_paths().storage.url is None
    absolute.save(tmp_path / "settings.yaml")
    elsewhere = load_config_with_defaults(tmp_path / "settings.yaml", [f"storage.data_cache={tmp_path}"])
    assert absolute.differences(elsewhere) == []
    assert absolute.differences(load_config_with_defaults(tmp_path / "settings.yaml", ["storage.url=s3://x/y"]))


@pytest.mark.parametrize("pair", ["tracking.alias=champion", "tracking.promotion.champion=challenger"])
def test_no_training_makes_its_model_the_champion_by_its_alias(pair: str) -> None:
    with pytest.raises(SettingsError, match=r"tracking\.alias: is \w+, the alias of the champion"):
        load_config_with_defaults(None, [pair])
