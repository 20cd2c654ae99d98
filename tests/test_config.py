"""What a person writes in YAML and on the command line is taken as it is meant, or refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import prepare
from typing_extensions import override

from benchmark.base.errors import BenchmarkError, ConfigError
from benchmark.base.plugins import PluginConfig, build
from benchmark.growth.schedule import GrowthSchedule, Progress
from benchmark.plan.config import (
    SuiteConfig,
    available,
    find,
    load_corpus,
    load_method,
    load_suite,
)
from benchmark.plan.guard import build_method
from benchmark.plan.reading import parse, read
from benchmark.plan.suite import plan
from benchmark.session.session import Session

SUITE = """\
name: tiny
version: "1.0"
workload:
  corpus: synthetic
  target: {d_model: 32, n_layer: 2, seq_len: 32}
protocol: {budget_flops: 1.0e+9, seeds: [0]}
methods: [scratch]
"""


def suite(folder: Path, text: str = SUITE) -> str:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return str(path)


def refusal(folder: Path, *overrides: str, text: str = SUITE) -> str:
    with pytest.raises(ConfigError) as caught:
        load_suite(suite(folder, text), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("-8e-2", -0.08), ("1e0", 1.0), ("1e-3", 0.001), ("1.5E3", 1500.0), (".5", 0.5),
        ("010", 10), ("1_000", 1000), ("-7", -7), ("on", "on"), ("yes", "yes"), ("1:30", "1:30"),
        ("0x1f", "0x1f"), ("true", True), ("null", None), ("~", None), (".inf", float("inf")),
        ("2026-11-27", "2026-11-27"), ("[1e1, a]", [10.0, "a"]), ("{a: 1e1}", {"a": 10.0}),
    ],
)  # fmt: skip
def test_numbers_and_words_are_those_of_yaml_1_2(
    tmp_path: Path, written: str, meant: object
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"x: {written}\n")
    for found in (read(path)["x"], parse([f"x={written}"])["x"]):
        assert found == meant
        assert type(found) is type(meant)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("version", "1.10"), ("version", "2.0"), ("name", "on"), ("name", "0123"), ("name", "1e3"),
        ("purpose", "x #1"), ("run.results", "010"), ("run.address", "a: b"),
    ],
)  # fmt: skip
def test_what_is_text_is_taken_as_written(tmp_path: Path, key: str, text: str) -> None:
    found: Any = load_suite(suite(tmp_path), [f"{key}={text}"])
    for name in key.split("."):
        found = getattr(found, name)
    assert found == text


def test_text_in_a_file_is_taken_as_written(tmp_path: Path) -> None:
    text = SUITE.replace('"1.0"', "1.10").replace("name: tiny", "name: 0123")
    found = load_suite(suite(tmp_path, text))
    assert (found.version, found.name) == ("1.10", "0123")


def test_the_path_of_a_corpus_is_taken_as_written(tmp_path: Path) -> None:
    for path in ("010", "x #1.txt", "a, b.txt"):
        overrides = ["workload.corpus=file", f"workload.corpus.path={path}"]
        assert load_suite(suite(tmp_path), overrides).workload.corpus.path == path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SUITE + "protocol: {seeds: [1]}\n", "the key 'protocol' stands twice"),
        (SUITE.replace("seeds: [0]", "seeds: [0], seeds: [1]"), "the key 'seeds' stands twice"),
        (SUITE.replace('version: "1.0"\n', ""), "version is missing"),
        (SUITE.replace("seeds: [0]", "seeds: 3"), "protocol.seeds must be a list"),
        (SUITE.replace("seeds: [0]", "seeds: [a]"), "protocol.seeds[0] must be a whole number"),
        (SUITE.replace("seeds: [0]", "seeds: [0.5]"), "protocol.seeds[0] must be a whole number"),
        (
            SUITE.replace("1.0e+9", "'1e9'"),
            "protocol.budget_flops must be a number in [1, inf), got '1e9'",
        ),
        (SUITE.replace("d_model: 32", "d_modl: 32"), "did you mean workload.target.d_model?"),
        (SUITE.replace("methods: [scratch]", "methods:"), "methods must be a list"),
        (SUITE.replace("corpus: synthetic", "corpus: [a]"), "workload.corpus must be"),
        ("- a\n", "expected a mapping"),
        ("a: [\n", "did not find expected node content"),
    ],
)
def test_a_suite_that_says_something_else_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text=text)


@pytest.mark.parametrize(
    "override", ["protocol.seeds=[0,", "protocol.seeds=a: b: c", "protocol.seeds=@x",
                 "protocol.seeds='0", "protocol.seeds=0: [", "protocol.seeds.x=1", "=1", "a b=1"],
)  # fmt: skip
def test_an_override_that_makes_no_sense_is_named(tmp_path: Path, override: str) -> None:
    assert override.partition("=")[0].split(".x")[0] in refusal(tmp_path, override)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("protocol.optimizer.clip", ["0", "-1", ".nan", ".inf"]),
        ("protocol.optimizer.eps", ["-1", "0"]),
        ("protocol.optimizer.beta1", ["1.5", "1", "-0.1"]),
        ("protocol.optimizer.beta2", ["1", ".nan"]),
        ("protocol.optimizer.weight_decay", [".nan", "-0.1", ".inf"]),
        ("protocol.learning_rate.peak", [".inf", "0", "-1", ".nan"]),
        ("protocol.learning_rate.warmup", ["0", "1", ".nan"]),
        ("protocol.learning_rate.decay", ["0", "1.5"]),
        ("protocol.budget_flops", ["0", ".inf", ".nan"]),
        ("protocol.cuts", ["[0]", "[1.5]", "[.nan]"]),
        ("protocol.tuning.fraction", ["0", "2"]),
        ("workload.batch_size", ["0", "-8"]),
        ("workload.target.norm_eps", ["0", ".nan"]),
        ("run.cache_gigabytes", ["-1", ".nan"]),
    ],
)
def test_a_setting_out_of_its_range_is_refused_before_anything_trains(
    tmp_path: Path, key: str, values: list[str]
) -> None:
    for value in values:
        assert key.rpartition(".")[2] in refusal(tmp_path, f"{key}={value}")


@pytest.mark.parametrize(
    "name",
    [
        "_x",
        "",
        "nan",
        "None",
        "$\\frac{a$",
        "cost $5 to $10",
        "../../../evil",
        "a b",
        "-x",
        "local",
    ],
)
def test_a_name_that_a_page_or_a_folder_cannot_carry_is_refused(tmp_path: Path, name: str) -> None:
    assert "name must be letters" in refusal(tmp_path, f"name={name}")
    path = tmp_path / "method.yaml"
    path.write_text(f"name: {name!r}\nrole: control\ntarget: baselines.scratch:Scratch\n")
    with pytest.raises(ConfigError, match="name must be letters"):
        load_method(str(path))


def method(folder: Path, **files: str) -> str:
    """Method files by name; the path of the first."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{next(iter(files))}.yaml")


def test_defaults_go_as_deep_as_they_like_but_not_in_circles(tmp_path: Path) -> None:
    path = method(
        tmp_path,
        a="defaults: b\nname: a\n",
        b="defaults: c\nsummary: of b\n",
        c="defaults: stacking\nsummary: of c\npaper: of c\n",
    )
    found = load_method(path)
    assert (found.summary, found.paper) == ("of b", "of c")
    assert found.ladder == load_method("stacking").ladder
    method(tmp_path, c="defaults: a\n")
    with pytest.raises(ConfigError, match="defaults go in a circle: a -> b -> c -> a"):
        load_method(path)


@pytest.mark.parametrize("folder", [".", "configs/method"])
def test_a_file_may_build_upon_the_packaged_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    packaged = load_method("ligo")
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = method(Path(folder), ligo="defaults: ligo\nname: ligo\nsummary: mine\n")
    assert load_method(path) == replace(packaged, summary="mine", tunable={})
    with pytest.raises(ConfigError, match="defaults go in a circle: mine -> mine"):
        load_method(method(Path(folder), mine="defaults: mine\nname: mine\n"))


def test_what_a_page_prints_of_rewarm_can_be_pasted(tmp_path: Path) -> None:
    path = method(tmp_path, a="defaults: stacking\nname: a\nrewarm: none\n")
    rewarm = load_method(path).rewarm
    assert rewarm is not None
    assert rewarm.which == "none"


def test_names_are_found_beside_the_suite_in_the_working_folder_and_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    beside, own = tmp_path / "study", tmp_path / "configs/method"
    beside.mkdir()
    own.mkdir(parents=True)
    (beside / "near.yaml").write_text("defaults: stacking\nname: near\n")
    (own / "mine.yaml").write_text("defaults: stacking\nname: mine\n")
    text = SUITE.replace("[scratch]", "[scratch, near, mine]")
    methods = load_suite(suite(beside, text)).methods
    assert [load_method(name).name for name in methods] == ["scratch", "near", "mine"]
    assert "mine" in available("method")
    assert find("method", "mine") == Path("configs/method/mine.yaml")
    with pytest.raises(ConfigError, match="did you mean mine"):
        find("method", "mien")


def test_an_unknown_method_does_not_print_all_names() -> None:
    with pytest.raises(ConfigError) as caught:
        find("method", "qqqqqqq")
    assert len(str(caught.value)) < 400
    assert "more" in str(caught.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"threshold": "-8e-2"}, "args.threshold must be a number, got '-8e-2'"),
        ({"window": 2.5}, "args.window must be a whole number, got 2.5"),
        ({"window": True}, "args.window must be a whole number, got True"),
        ({"threshold": float("nan")}, "schedule.threshold must be finite"),
        ({"treshold": 1}, "did you mean threshold?"),
    ],
)
def test_arguments_of_another_kind_than_the_constructor_says_are_refused(
    args: dict[str, Any], words: str
) -> None:
    plugin = PluginConfig(target="benchmark.schedule:OnSlope", args=args)
    with pytest.raises(ConfigError) as caught:
        build(plugin, GrowthSchedule, "method.x.schedule")
    assert words in str(caught.value)


def test_a_whole_number_is_a_number_and_a_list_is_a_tuple() -> None:
    plugin = PluginConfig(target="benchmark.schedule:AtFractions", args={"at": [0, 0.5]})
    assert build(plugin, GrowthSchedule, "x") is not None


BROKEN = {
    "exits": ("import sys\nsys.exit(0)\n", "it exits with code 0 ("),
    "parses": (
        "import argparse\nargparse.ArgumentParser().parse_args(['--nonsense'])\n",
        "it exits with code 2 (",
    ),
    "undefined": ("x = undefined_name\n", "NameError: name 'undefined_name' is not defined"),
    "key": ("{}['gone']\n", "KeyError: 'gone'"),
    "syntax": ("def (:\n", "invalid syntax"),
    "interrupts": ("raise BaseException('odd')\n", "BaseException: odd"),
}


@pytest.mark.parametrize(("name", "case"), BROKEN.items(), ids=BROKEN)
def test_a_module_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, case: tuple[str, str]
) -> None:
    source, words = case
    (tmp_path / f"broken_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        build_method(PluginConfig(target=f"broken_{name}:Method"), "method.x")
    assert "method.x.target" in str(caught.value)
    assert words in str(caught.value)
    assert f"broken_{name}" in str(caught.value)


CONSTRUCTORS = {
    "exits": ("super().__init__(); raise SystemExit(0)", "it exits with code 0 ("),
    "undefined": ("super().__init__(); self.x = undefined_name", "NameError"),
    "forgets": ("self.operators = ()", "must call super().__init__()"),
}


@pytest.mark.parametrize(("name", "case"), CONSTRUCTORS.items(), ids=CONSTRUCTORS)
def test_a_constructor_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, case: tuple[str, str]
) -> None:
    body, words = case
    (tmp_path / f"made_{name}.py").write_text(
        "from benchmark.baseline import Baseline\n"
        f"class Method(Baseline):\n    def __init__(self):\n        {body}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        build_method(PluginConfig(target=f"made_{name}:Method"), "method.x")
    assert words in str(caught.value)


def test_a_manifest_is_read_like_a_suite(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text(
        "name: 0123\nkind: file\nsource: a\nlicence: b\npath: 010\n"
        "splits: {val_start: 9e-1, test_start: .95}\n"
    )
    found = load_corpus(str(path))
    assert (found.name, found.path, found.splits.val_start) == ("0123", "010", 0.9)
    path.write_text("name: a\nkind: file\nsource: a\nlicense: b\n")
    with pytest.raises(ConfigError, match="unknown key license; did you mean licence"):
        load_corpus(str(path))


def test_every_suite_of_the_project_is_what_its_schema_says() -> None:
    assert all(isinstance(load_suite(name), SuiteConfig) for name in available("suite"))


@pytest.mark.parametrize(
    "text", ["costs ${x}", "${oc.env:HOME}", "???", "costs ${", "a\\b {c}", "#5", "010"]
)
def test_nothing_in_a_text_means_anything_else(tmp_path: Path, text: str) -> None:
    assert load_suite(suite(tmp_path), [f"purpose={text}"]).purpose == text
    path = method(tmp_path, a=f"defaults: stacking\nname: a\nsummary: '{text}'\n")
    assert load_method(path).summary == text


def test_a_mistake_is_blamed_on_the_file_that_made_it(tmp_path: Path) -> None:
    path = method(
        tmp_path, a="defaults: b\nname: a\n", b="defaults: stacking\nladder: {n_growths: 1.5}\n"
    )
    with pytest.raises(ConfigError, match=r"b\.yaml: ladder\.n_growths must be a whole number"):
        load_method(path)
    method(tmp_path, a="defaults: [b]\nname: a\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: defaults must name a preset or a method"):
        load_method(path)
    method(tmp_path, a="summary: a\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: name is missing"):
        load_method(path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seeds=[1]", "unknown key seeds; did you mean protocol.seeds or protocol.tuning.seeds?"),
        ("corpus.path=010", "unknown key corpus; did you mean workload.corpus?"),
        ("protocol.device=cpu", "unknown key protocol.device; did you mean run.device?"),
        ("run.cache=", "run.cache must not be empty"),
        ("run.results= ", "run.results must not be empty"),
        ("version=", "version must not be empty"),
        ("hull=[{}]", "each fixed size must name what differs"),
        ("run.device=gpu", "run.device must be one of ['auto', 'cpu', 'cuda'], got 'gpu'"),
        ("protocol.seeds=???", "protocol.seeds must be a list, each a whole number, got '???'"),
        (
            "factors={operator: [stacking], state_policy: [reset], rewarm: {../x: {which: none}}, "
            "at: [0.5], factor: [2]}",
            "a level of factors.rewarm must be letters",
        ),
    ],
)
def test_an_override_that_cannot_be_meant_is_answered_by_what_can(
    tmp_path: Path, override: str, words: str
) -> None:
    assert words in refusal(tmp_path, override)


def test_defaults_are_a_preset_or_the_method_of_which_a_file_is_a_variant() -> None:
    parents = {name: read(find("method", name)).get("defaults") for name in available("method")}
    for name, parent in parents.items():
        if parent is not None and parent not in available("preset"):
            assert load_method(name).target == load_method(parent).target


class Never(GrowthSchedule):
    """A schedule that waits for ever."""

    @override
    def due(self, progress: Progress) -> bool:
        return False


class Failing(GrowthSchedule):
    """A schedule that fails when it is asked."""

    @override
    def due(self, progress: Progress) -> bool:
        raise KeyError("gone")


class Nowhen(GrowthSchedule):
    """A schedule whose times are no numbers."""

    @override
    def times(self, n_growths: int) -> tuple[float, ...]:
        return (float("nan"),) * n_growths

    @override
    def due(self, progress: Progress) -> bool:
        return False


def no_way(progress: float) -> float:
    """A ladder's path that fails."""
    raise KeyError(progress)


GROWTH = """\
name: x
target: baselines.stacking:Stacking
ladder: {shrink: {n_layer: 2}, n_growths: 1}
schedule: {target: "benchmark.schedule:AtFractions", args: {at: [0.5]}}
"""
AT = '"benchmark.schedule:AtFractions", args: {at: [0.5]}'
LADDER = "ladder: {shrink: {n_layer: 2}, n_growths: 1}\n"
ROWS = {
    "never": (AT, "test_config:Never", "it has grown 0 times of the 1 that ladder.n_growths"),
    "too late": (AT, '"benchmark.schedule:OnSlope", args: {latest: 2}', "it has grown 0 times"),
    "at the end": ("0.5", "0.9999999", "growths being due at [0.9999999] of it"),
    "failing": (AT, "test_config:Failing", "method.x: KeyError: 'gone' ("),
    "nowhen": (AT, "test_config:Nowhen", "rise within [0, 1), got [nan]"),
    "no way": ("n_growths: 1", 'n_growths: 2, path: "test_config:no_way"', "KeyError: 0.5"),
    "no ladder": (LADDER, "", "schedule is set, but method.x.ladder.n_growths is 0"),
    "nothing grows": ("n_layer: 2", "n_layer: 1", "method.x never grows: set ladder"),
    "no sizes": ("{shrink: {n_layer: 2}, n_growths: 1}", "{n_growths: 1}", "never grows"),
    "not a number": ("n_layer: 2", "n_layer: .nan", "must be at least 1"),
    "no operators": ("stacking:Stacking", "scratch:Scratch", "cannot grow n_layer from 1 to 2"),
    "no such control": ("name: x", "name: x\ncontrols: [scrath]", "did you mean scratch"),
}


@pytest.mark.parametrize(("old", "new", "words"), ROWS.values(), ids=ROWS)
def test_a_row_that_would_never_grow_is_refused_with_its_reason(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = method(tmp_path, x=GROWTH.replace(old, new))
    config = load_suite(suite(tmp_path), added=[path])
    data = {"name": "none", "sha256": "", "train": 10**9, "val": 1, "test": 1}
    with pytest.raises(BenchmarkError) as caught:
        plan(config, data)
    assert words in str(caught.value)


def test_a_vocabulary_without_a_byte_of_the_corpus_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepare(tmp_path / "here"))
    assert Session(load_suite("tiny.yaml", ["workload.target.vocab_size=123"])).runs
    with pytest.raises(ConfigError, match="vocab_size must be above 122, the largest byte of"):
        Session(load_suite("tiny.yaml", ["workload.target.vocab_size=122"]))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(prepare(tmp_path / "home")))
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    places = ["run.cache=~/cache", "run.results=~/found", "workload.corpus.path=~/letters.txt"]
    session = Session(load_suite("~/tiny.yaml", places))
    assert session.cache == tmp_path / "home/cache"
    assert session.results.parent == tmp_path / "home/found"
    assert session.corpus.name == "letters"
    assert list(Path.cwd().iterdir()) == []
