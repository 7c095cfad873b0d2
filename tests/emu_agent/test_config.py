"""Loading, checking and building from configs; on a config tree of its own."""

import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from emu_agent import config
from emu_agent.config import (
    build,
    check_counts,
    check_seed,
    choices_of,
    config_dir,
    groups_of,
    load_config,
    output_folder,
)
from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.run_folder import is_full_disk

FILES = {
    "drive.yaml": """
defaults: [{car: van}, _self_, {trip: null}]
speed: 1.5
wheels: 4
loud: false
name: x
stops: [1, 2]
where:
  town: ${name}
  far: null
""",
    "walk.yaml": "pace: ???\n",
    "dangling.yaml": "a: ${nowhere}\n",
    "broken.yaml": "a: [1,\n",
    "car/van.yaml": "seats: 8\n",
    "car/bus.yaml": "seats: 40\n",
    "trip/night.yaml": "# @package _global_\ndefaults: [{override /car: bus}]\nspeed: 0.5\n",
    "hat/red.yaml": "size: 1\n",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("configs")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def small_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "config_dir", lambda: tree)


def test_config_dir_holds_the_commands() -> None:
    assert (config_dir() / "doctor.yaml").is_file()


def test_defaults_and_interpolations() -> None:
    cfg = load_config("drive")
    assert OmegaConf.to_container(cfg) == {
        "car": {"seats": 8},
        "speed": 1.5,
        "wheels": 4,
        "loud": False,
        "name": "x",
        "stops": [1, 2],
        "where": {"town": "x", "far": None},
    }


def test_overrides_of_values_groups_and_nested_keys() -> None:
    overrides = [
        "car=bus",
        "where.far=2",
        "loud=true",
        "stops=[3]",
        "name='a b'",
        "car.seats=41",
        "stops.0=3",
    ]
    cfg = load_config("drive", overrides)
    assert (cfg.car.seats, cfg.where.far, cfg.loud, cfg.stops, cfg.where.town) == (41, 2, True, [3], "a b")


def test_a_group_file_can_change_other_choices() -> None:
    cfg = load_config("drive", ["trip=night"])
    assert (cfg.car.seats, cfg.speed) == (40, 0.5)
    assert groups_of("drive", ["trip=night"]) == {"car": "bus", "trip": "night"}


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("drive", "sped=1", r"no setting 'sped' in drive; it has .*wheels.*did you mean 'speed'"),
        ("drive", "where.twn=1", r"no setting 'twn' in drive.where; it has far, town"),
        ("drive", "stops.2=1", r"no setting '2' in drive.stops; it has 0, 1"),
        ("drive", "speed.x=1", r"no setting 'x' in drive.speed; it has nothing"),
        ("drive", "car=lorry", r"no car 'lorry'; there are bus, van"),
        ("drive", "hat=red", r"no setting 'hat' in drive"),
        ("walk", "car=van", r"no setting 'car' in walk; it has pace"),
        ("drive", "wheels=3.5", r"wheels must be a whole number, got 3.5"),
        ("drive", "wheels=true", r"wheels must be a whole number, got True"),
        ("drive", "speed=fast", r"speed must be a number, got 'fast'"),
        ("drive", "loud=1", r"loud must be true or false, got 1"),
        ("drive", "stops=1", r"stops must be a list"),
        ("drive", "where=1", r"where must be a mapping"),
        ("drive", "name=${nobody}", r"cannot compose 'drive' with name=\$\{nobody\}: .*nobody"),
        ("drive", "speed=1,2", r"speed must be a number, got '1,2'"),
        ("drive", "~speed", r"'~speed' removes a setting"),
        ("drive", "+hats=3", r"no setting 'hats' in drive"),
        ("drive", "speed", r"cannot read 'speed'; settings are written key=value"),
        ("drive", "a b=1", r"cannot read 'a b=1'"),
        ("drive", "hydra.verbose=true", r"no setting 'hydra'"),
        ("walk", "pace=null", None),
    ],
)
def test_wrong_overrides_are_refused_with_what_is_right(
    name: str, override: str, message: str | None
) -> None:
    if message is None:
        load_config(name, [override])
        return
    with pytest.raises(ConfigError, match=message):
        load_config(name, [override])


def test_unknown_config_missing_value_and_dangling_interpolation() -> None:
    with pytest.raises(
        ConfigError, match=r"no config 'driv'; there are broken, dangling, drive, walk .*'drive'"
    ):
        load_config("driv")
    with pytest.raises(ConfigError, match=r"give a value for pace=\.\.\."):
        load_config("walk")
    assert OmegaConf.is_missing(load_config("walk", allow_missing=True), "pace")
    with pytest.raises(ConfigError, match=r"cannot compose 'dangling': .*nowhere"):
        load_config("dangling")


def test_a_file_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot compose 'broken': .*broken.yaml.* line 2"):
        load_config("broken")


def test_a_whole_number_for_a_real_one_becomes_real() -> None:
    speed = load_config("drive", ["speed=2"]).speed
    assert isinstance(speed, float)
    assert speed == 2.0


def test_choices_stay_inside_the_config_tree(tree: Path) -> None:
    assert choices_of("car") == ["bus", "van"]
    assert choices_of("cart") == choices_of("") == choices_of(f"../{tree.name}/car/../../..") == []


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.generate],  # each example composes configs, which is too slow for shrinking
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    speed=st.floats(-1e6, 1e6),
    wheels=st.integers(-(10**9), 10**9),
    loud=st.booleans(),
    name=st.text(string.ascii_letters + string.digits, min_size=1).map(lambda word: f"n{word}"),
)
def test_what_is_given_arrives(speed: float, wheels: int, loud: bool, name: str) -> None:
    cfg = load_config(
        "drive", [f"speed={speed}", f"wheels={wheels}", f"loud={str(loud).lower()}", f"name={name}"]
    )
    assert (cfg.speed, cfg.wheels, cfg.loud, cfg.where.town) == (speed, wheels, loud, name)
    assert load_config("drive").wheels == 4


def test_build_gives_plain_arguments() -> None:
    node = OmegaConf.create({"_target_": "builtins.dict", "a": [1, {"b": 2}]})
    built = build(node, c=3)
    assert built == {"a": [1, {"b": 2}], "c": 3}
    assert type(built["a"]) is list
    assert type(built["a"][1]) is dict


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"a": 1}, r"without _target_; its keys are \['a'\]"),
        ({"_target_": "emu_agent.errors.Nothing"}, r"cannot build emu_agent.errors.Nothing"),
        ({"_target_": "emu_agent.nowhere.Thing"}, r"cannot build emu_agent.nowhere.Thing"),
        (
            {"_target_": "emu_agent.cli.available_commands", "colour": 1},
            r"unexpected keyword argument 'colour'",
        ),
    ],
)
def test_build_refuses_what_does_not_exist(node: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(OmegaConf.create(node))


def refuse() -> None:
    raise CheckpointError("truncated")


def test_errors_of_what_is_built_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_agent.errors.refuse", refuse, raising=False)
    with pytest.raises(CheckpointError, match=r"^truncated$"):
        build(OmegaConf.create({"_target_": "emu_agent.errors.refuse"}))


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        build(OmegaConf.create({"_target_": "no_such_package.Thing"}))
    assert caught.value.name == "no_such_package"


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_counts_are_whole_numbers_from_one_on(value: object) -> None:
    cfg = OmegaConf.create({"episodes": value})
    with pytest.raises(ConfigError, match="episodes must be a whole number of at least 1, got"):
        check_counts(cfg, "episodes")
    check_counts(OmegaConf.create({"episodes": 1, "workers": None}), "episodes", optional=("workers",))


@pytest.mark.parametrize("seed", [-1, 0.5, None, False, 10**20])
def test_seeds_are_whole_numbers_that_a_generator_takes(seed: object) -> None:
    check_seed(0)
    with pytest.raises(ConfigError, match="seed must be a whole number from 0 to"):
        check_seed(seed)


def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/deeper/still"):
        with pytest.raises(ConfigError, match=r"cannot be a folder: .*file is a file"):
            output_folder(OmegaConf.create({"output": str(tmp_path / name)}))
    with pytest.raises(ConfigError, match="output must name a folder"):
        output_folder(OmegaConf.create({"output": ""}))
    assert output_folder(OmegaConf.create({"output": 3})) == Path("3")
    assert output_folder(OmegaConf.create({"output": None}), Path("runs/x")) == Path("runs/x")


def fail_inside() -> None:
    try:
        raise KeyError("first")
    except KeyError:
        raise ValueError("no weights here") from None


def stumble() -> None:
    len(3)  # pyright: ignore[reportArgumentType]


def test_an_error_inside_of_a_target_ends_a_search_of_its_causes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_agent.errors.refuse", fail_inside, raising=False)
    with pytest.raises(ValueError, match="no weights here") as caught:
        build(OmegaConf.create({"_target_": "emu_agent.errors.refuse"}))
    assert not is_full_disk(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_type_error_inside_of_a_target_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_agent.errors.refuse", stumble, raising=False)
    with pytest.raises(ConfigError, match=r"object of type 'int' has no len\(\) \(.*test_config.py:\d+\)"):
        build(OmegaConf.create({"_target_": "emu_agent.errors.refuse"}))
