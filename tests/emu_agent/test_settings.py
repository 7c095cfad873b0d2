"""Arguments of the command line as people write them."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from emu_agent.config import load_config
from emu_agent.errors import ConfigError
from emu_agent.settings import Argument, from_options

TEXTS = [
    "把红色方块拿起来", "hebe den Würfel auf", "don't push it", "lift it, then hold still", "🤖 wave", "5",
    "true", "put cup #2 on the shelf (left)", "3 cubes: [a] {b} <c> | d & e; f! 100% $5", "a=b", 'say "hi"',
    "C:\\new\\",
    "1e3", "[left] or {right}", "-x", "+1", "~tilde", "tab\tand\nline", "it's 'so' \\'quoted\\'", " edges ",
]  # fmt: skip


def fitted(key: str, value: str, default: object) -> object:
    """What the setting becomes."""
    return Argument.read(f"{key}={value}").fitted(default)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("default", ["lift the cube", None])
def test_a_text_is_taken_as_it_is(text: str, default: str | None) -> None:
    assert fitted("instruction", text, default) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("'lift it'", "lift it"), ('"null"', "null"), (r"'don\'t'", "don't"), ("'a' or 'b'", "'a' or 'b'")],
)
def test_quotes_around_all_of_a_text_are_taken_off(value: str, text: str) -> None:
    assert fitted("instruction", value, "x") == text


def test_a_list_of_texts_is_one_in_any_language() -> None:
    assert fitted("image", "[a.png,küche 1.png,2024]", None) == ["a.png", "küche 1.png", "2024"]
    assert fitted("results", '["a, b",c]', OmegaConf.create([])) == ["a, b", "c"]


def test_a_reference_to_a_setting_is_kept_and_half_a_one_refused() -> None:
    assert fitted("output", "runs/${seed}", "x") == "runs/${seed}"
    with pytest.raises(ConfigError, match=r"instruction has .* refers to a setting"):
        Argument.read("instruction=it costs ${5").fitted("x")


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jörg")
    assert fitted("output", "~/runs", "runs") == str(Path.home() / "runs") == "/home/jörg/runs"
    assert fitted("output", "~", "runs") == "/home/jörg"
    assert fitted("output", "a/~/b", "runs") == "a/~/b"


def test_without_a_home_a_tilde_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", nowhere)
    assert fitted("output", "~/runs", "runs") == "~/runs"


@pytest.mark.parametrize(
    ("key", "value", "default", "message"),
    [
        ("instruction", "null", "x", "instruction must be a text, got null; in quotes if the word is meant"),
        ("instruction", "", "x", "instruction is empty; give it a text"),
        ("checkpoint", " ", None, "checkpoint is empty; give it a text, or null for none"),
        ("checkpoint", "None", None, "checkpoint must be checkpoint=null for none, got None"),
        ("guidance_scale", "abc", None, "guidance_scale must be a number, got 'abc'"),
        ("guidance_scale", "nan", None, "guidance_scale must be a number, got nan"),
        ("policy.sigma", "-inf", 0.3, "policy.sigma must be a number, got -inf"),
        ("threads", "null", 2, "threads must be a whole number, got null"),
        ("steps", "2.5", None, "steps must be a whole number, got 2.5"),
        ("steps", "zwei", None, "steps must be a whole number, got 'zwei'"),
        ("steps", "1,2", None, "steps must be a whole number, got '1,2'"),
        ("video", "yes", True, "video must be true or false, got 'yes'"),
        ("video", "null", True, "video must be true or false, got null"),
        (
            "horizons",
            "[8,nan]",
            OmegaConf.create([8, 16]),
            r"horizons must be a list of numbers, got \[8, nan\]",
        ),
        ("horizons", "[a]", OmegaConf.create([8, 16]), r"horizons must be a list of numbers, got \['a'\]"),
        ("horizons", "8", OmegaConf.create([8, 16]), "horizons must be a list"),
        ("lora", "yes", None, "lora must be a mapping"),
    ],
)
def test_values_of_another_kind_are_refused_in_words(
    key: str, value: str, default: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Argument.read(f"{key}={value}").fitted(default)


@pytest.mark.parametrize(("value", "default"), [("null", None), ("null", OmegaConf.create({"a": 1}))])
def test_null_is_none_where_there_may_be_none(value: str, default: object) -> None:
    assert fitted("gate", value, default) is None
    assert fitted("perturbed", value, "data/varied") is None


@pytest.mark.parametrize("text", ["episodes", "=3", "a b=1", "-e", "episodes ", ""])
def test_what_is_no_setting_says_how_settings_are_written(text: str) -> None:
    with pytest.raises(ConfigError, match="settings are written key=value, without spaces around the ="):
        Argument.read(text)


def test_options_with_dashes_are_settings() -> None:
    given = [
        "--episodes=3",
        "--max-steps",
        "5",
        "--video",
        "false",
        "--force",
        "--compile",
        "seed=1",
        "--image",
        "-a=b",
    ]
    expected = [
        "episodes=3",
        "max_steps=5",
        "video=false",
        "force=true",
        "compile=true",
        "seed=1",
        "image=-a=b",
    ]
    assert from_options(given, ["video", "force", "compile"]) == expected
    for args in (["--episodes"], ["--episodes", "--seed=1"]):
        with pytest.raises(ConfigError, match="--episodes needs a value: --episodes=VALUE"):
            from_options(args, ["video"])


def test_a_setting_that_lies_deeper_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"no setting 'lr' in train; .*did you mean 'experiment\..*lr'"):
        load_config("train", ["lr=0.1"])
