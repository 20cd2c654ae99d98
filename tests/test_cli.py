"""The command line: what it shows, what it leaves behind, and one line for every mistake."""

import gzip
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console
from tiny_suite import prepare

from benchmark.cli import listing
from benchmark.cli.display import Display
from benchmark.cli.main import main
from benchmark.data.corpora import load
from benchmark.executors.track import Track
from benchmark.plan.config import available, load_suite
from benchmark.records.folder import load_suite as load_records
from benchmark.session.outlook import predict
from benchmark.session.session import Session
from benchmark.stage.context import Tick

ROOT = Path(__file__).resolve().parent.parent

MODULE = '''
"""Methods of somebody else: one that works, one that raises, one that goes mad."""

import math

from baselines.parts.block_orders import RepeatBlocks
from baselines.stacking import Stacking


class Mine(Stacking):
    """Nothing new."""


class Raises(Stacking):
    """Fails when it grows."""

    def __init__(self):
        super().__init__()
        self.operators = (_Raise(),)


class _Raise(RepeatBlocks):
    def adapt(self, weight, axes):
        raise Unlucky("no", "luck")


class Unlucky(Exception):
    """Cannot be pickled and read again."""

    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


class Explodes(Stacking):
    """Leaves the finite numbers when it grows."""

    def __init__(self):
        super().__init__()
        self.operators = (_Explode(),)


class _Explode(RepeatBlocks):
    def adapt(self, weight, axes):
        return weight * math.inf
'''


FIRST_LINE = "planning {} and starting workers\n"
METHODS = "methods=[scratch,scratch_small]"
LADDER = "ladder: {shrink: {n_layer: 2}, n_growths: 1}"
SCHEDULE = "schedule: {target: 'benchmark.growth.schedule:AtFractions', args: {at: [0.5]}}"


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    folder: Path
    code: int
    out: str
    err: str


def write_method(folder: Path, name: str, target: str, more: str = LADDER) -> str:
    """A method file that grows from one layer to two at half the budget."""
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\ntarget: '{target}'\n{SCHEDULE}\n{more}\n")
    return path.name


def growbench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code and output of a command, run in this process."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.fixture(autouse=True)
def search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the tiny suite."""
    monkeypatch.chdir(prepare(tmp_path))
    write_method(tmp_path, "idle", "baselines.scratch:Scratch")
    return tmp_path


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run of the tiny suite with three methods from a module of the working folder."""
    folder = prepare(tmp_path_factory.mktemp("run"))
    (folder / "elsewhere.py").write_text(MODULE)
    options = []
    for name in ("Mine", "Raises", "Explodes"):
        file = write_method(folder, name.lower(), f"elsewhere:{name}")
        options += ["--method", file]
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "run", "tiny.yaml", METHODS, *options],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return Outcome(folder, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def trained(outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which what can be trained is trained, to work in and to damage."""
    folder = tmp_path / "copy"
    shutil.copytree(outcome.folder, folder)
    monkeypatch.chdir(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_failed_and_a_diverged_run_are_rows_and_the_others_are_done(outcome: Outcome) -> None:
    assert outcome.code == 1, outcome.err
    runs = {run.method: run for run in load_records(outcome.folder / "results/local/tiny").runs}
    assert {name: run.status for name, run in runs.items()} == {
        "scratch": "done", "scratch_small": "done", "mine": "done", "raises": "failed",
        "explodes": "diverged",
    }  # fmt: skip
    assert runs["raises"].events[-1]["error"] == "Unlucky: no luck"
    report = (outcome.folder / "results/local/tiny/report.md").read_text()
    assert all(name in report for name in runs)


@pytest.mark.slow
def test_troubles_are_told_with_the_place_of_the_traceback(outcome: Outcome) -> None:
    diverged, failed = sorted(outcome.err.splitlines())
    assert diverged.startswith("growbench: explodes seed 0 diverged: the training loss is ")
    assert failed.startswith("growbench: raises seed 0 failed: Unlucky: no luck (see .growbench/")
    trace = outcome.folder / failed.partition("(see ")[2].rstrip(")")
    assert "in adapt" in trace.read_text()


@pytest.mark.slow
def test_without_a_terminal_every_run_is_a_line_and_the_verdicts_follow(outcome: Outcome) -> None:
    lines = outcome.out.splitlines()
    assert lines[0] == FIRST_LINE.format("tiny.yaml").strip()
    assert lines[1].startswith("0 of 5 runs were finished before; 0.0 % of ")
    ended = [line for line in lines if " of 5: " in line]
    assert [line.split()[0] for line in ended] == ["1", "2", "3", "4", "5"]
    assert any("scratch seed 0 done at " in line and "val bpb " in line for line in ended)
    header = next(i for i, line in enumerate(lines) if "test bpb" in line)
    *shown, reason, report = lines[header + 1 :]
    assert {line.split()[0] for line in shown} == {
        "scratch", "scratch_small", "mine", "raises", "explodes",
    }  # fmt: skip
    assert reason.startswith("no verdict: ")
    assert report == "results/local/tiny/report.md"


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_where_nothing_reached_a_step_rows_have_failed_and_each_reason_is_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = growbench(capsys, "run", "tiny.yaml", "run.timeout_seconds=0.001")
    assert code == 1
    assert "2 of 2: stacking seed 0 timeout at 0 FLOPs" in out
    assert err == (
        "growbench: scratch seed 0 and 1 more timeout: the stage took longer than 0.001 seconds\n"
    )
    assert "timeout: seed 0" in Path("results/local/tiny/report.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("n_ended", [0, 1])
def test_an_interrupted_suite_has_a_report_of_the_runs_that_have_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, n_ended: int
) -> None:
    """Controls are first, and a run that has begun ends before the next begins."""
    show = Display.show

    def interrupt(shown: Display, tracks: Sequence[Track]) -> None:
        show(shown, tracks)
        if sum(track.status == "done" for track in tracks) >= n_ended:
            raise KeyboardInterrupt

    monkeypatch.setattr(Display, "show", interrupt)
    code, out, err = growbench(capsys, "run", "tiny.yaml", "methods=[stacking,scratch]")
    assert code == 130
    assert err == "growbench: interrupted; the same command goes on where it stopped\n"
    assert "\ninterrupted; writing the report of the runs that have ended\n" in out
    results = Path("results/local/tiny")
    assert (results / "corpus.json").is_file()
    assert (results / "report.md").is_file() is (n_ended > 0)
    if n_ended == 0:
        assert "there is none: suite tiny: none of its 2 runs has records yet" in out
        return
    statuses = {run.method: run.status for run in load_records(results).runs}
    assert statuses == {"stacking": "missing", "scratch": "done"}
    assert "**Partial: 1 of 2 runs have ended.**" in (results / "report.md").read_text()
    assert out.splitlines()[-1] == "results/local/tiny/report.md"


@pytest.mark.slow
def test_a_second_run_trains_nothing_and_renders_the_same_bytes(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("run", "tiny.yaml", "methods=[scratch,scratch_small,mine.yaml]")
    code, _, err = growbench(capsys, *command)
    assert (code, err) == (0, "")
    results, stages = contents(trained / "results"), contents(trained / ".growbench")
    assert "local/tiny/report.md" in results
    code, out, _ = growbench(capsys, *command)
    assert code == 0
    assert out.splitlines()[1].startswith("3 of 3 runs were finished before; 100.0 %")
    assert contents(trained / "results") == results
    assert contents(trained / ".growbench") == stages


@pytest.mark.slow
def test_a_diverged_run_is_a_result(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = growbench(capsys, "run", "tiny.yaml", METHODS, "--method", "explodes.yaml")
    assert (code, err.count("\n")) == (0, 1)
    assert "explodes seed 0 diverged" in err


@pytest.mark.slow
def test_a_report_is_rendered_and_checked_without_torch(trained: Path) -> None:
    code = (
        "import sys\n"
        "from benchmark.cli.main import main\n"
        "for command in (['--help'], ['report', 'results/local/tiny'], "
        "['report', 'results/local/tiny', '--check']):\n"
        "    try:\n"
        "        main(command)\n"
        "    except SystemExit as stop:\n"
        "        assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=trained, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "results/local/tiny/report.md" in done.stdout


@pytest.mark.slow
def test_a_check_names_the_files_that_are_not_what_the_records_give(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "results/local/tiny/report.md").write_text("better")
    (trained / "results/local/tiny/tables/runs.csv").unlink()
    code, out, err = growbench(capsys, "report", "results/local/tiny", "--check")
    assert (code, out) == (1, "")
    assert err == "growbench: not what the records give: report.md, tables/runs.csv\n"


@pytest.mark.slow
def test_a_plan_shows_the_matrix_the_sharing_and_what_is_trained(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = growbench(capsys, "plan", "tiny.yaml", "protocol.seeds=[0,1]")
    assert (code, err) == (0, "")
    matrix, totals = out.splitlines()[:3], out.splitlines()[3:]
    assert matrix[1].split()[:4] == ["scratch", "control", "0", "1"]
    assert "n_layer 1 to 2 at" in matrix[2]
    assert "24.7 k 32.9 k" in matrix[2]
    assert all(re.search(r" [1-9]\d* of \d+ stages", line) for line in matrix[1:])
    assert re.match(r"4 runs, \d+ distinct stages, of which [1-9]\d* are trained", totals[0])
    assert totals[1].startswith("charged ")
    assert "executed " in totals[1]
    assert totals[2].startswith("predicted time for the ")


@pytest.mark.usefixtures("here")
def test_a_plan_tells_what_is_unspent_and_which_verdicts_will_be_withheld() -> None:
    def doubts(*settings: str) -> list[str]:
        session = Session(load_suite("tiny.yaml", settings))
        return list(listing.doubts(session, listing.outlooks_of(session)))

    needed = ["scratch", "scratch_small", "restart_only", "untrained_source"]
    enough = ["protocol.rungs=[1.0]", "workload.target.n_layer=4", "hull=[{n_layer: 2}]"]
    (unspent,) = doubts(f"methods=[{','.join(needed)},stacking]", *enough)
    assert re.fullmatch(r"unspent, as a step is whole: at most .+ % of a budget \(.+\)", unspent)
    assert doubts()[1:] == [
        "there will be no verdict: no run of `scratch_small`, `scratch at C*/4` and "
        "`scratch at C*/2`",
        "will not be called better: stacking (there is no result of the control `restart_only`; "
        "there is no result of the control `untrained_source`; its source (n_layer 1) was not "
        "trained alone at C*)",
    ]


@pytest.mark.usefixtures("here")
def test_a_schedule_of_a_methods_own_is_told_once_whatever_its_trials() -> None:
    methods = "methods=[scratch,net2net_corner_annealed]"
    tuning = "protocol.tuning={trials: 3, seeds: [7], space: {learning_rate.peak: [0.001, 0.01]}}"
    session = Session(load_suite("tiny.yaml", (methods, tuning)))
    assert {run.method.trial for run in session.runs} == {None, 0, 1, 2}
    lines = list(listing.totals(session, listing.outlooks_of(session), with_time=False))
    (own,) = [line for line in lines if line.startswith("own schedule")]
    assert own.startswith("own schedule: net2net_corner_annealed: 1 x the peak rate, ")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "name",
    [
        *("cpu", "ladder_1", "mixes", "regime_optimal", "tokenformer", "wikipedia"),
        pytest.param("cpu_tuned", marks=pytest.mark.slow),
        *("gpu", "gpu_large"),
    ],
)
def test_a_suite_of_ours_trains_the_controls_that_its_verdicts_need(name: str) -> None:
    text = ("workload.corpus=synthetic", "protocol.allow_repeats=true", "protocol.seeds=[0]")
    session = Session(load_suite(name, text))
    doubts = list(listing.doubts(session, []))
    # old tokens at rest, another temperature, another stream: sources that nobody would train; and
    # two that would read enwik9 more than once if they were trained alone
    rare = ("tokenformer_frozen, tokenformer_exact and tokenformer_wide", "late_depth", "flm101b")
    found = [line.partition("better: ")[2].partition(" (")[0] for line in doubts]
    assert [line for line, methods in zip(doubts, found, strict=True) if methods not in rare] == []


@pytest.mark.slow
def test_results_are_named_by_their_suite_or_by_their_folder(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained == Path.cwd()
    for command in (["show"], ["report", "--check"], ["audit"], ["compare", "tiny.yaml"]):
        by_folder = growbench(capsys, *command, "results/local/tiny")
        assert growbench(capsys, *command, "tiny.yaml") == by_folder
        assert growbench(capsys, *command, "tiny") == by_folder


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_batch_that_no_memory_holds_is_planned_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    huge = ["protocol.eval_batch_size=1000000000000", "workload.batch_size=100000000"]
    more = ["protocol.budget_flops=1e22", "protocol.allow_repeats=true"]
    code, out, err = growbench(capsys, "plan", "tiny.yaml", *huge, *more)
    assert (code, err) == (0, "")
    assert "predicted time for the 9 stages left" in out


def test_a_prediction_counts_shared_stages_once_and_never_splits_a_run() -> None:
    shared = [("a", 4.0), ("b", 2.0)]
    assert predict([shared, [("a", 4.0), ("c", 2.0)]], workers=1) == 8.0
    assert predict([shared, [("a", 4.0), ("c", 2.0)]], workers=4) == 6.0
    assert predict([[]], workers=2) == 0.0


def test_the_list_names_every_method_suite_and_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = growbench(capsys, "list")
    first = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert code == 0
    assert {*available("method"), *available("suite"), *available("corpus")} <= first


@pytest.mark.slow
def test_a_method_is_held_to_its_contract(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = growbench(capsys, "check", "baselines.stacking:Stacking", "order=interleaved")
    assert (code, "failed" in out) == (0, False)
    code, out, _ = growbench(capsys, "check", "broken_methods:ClaimsTooMuch")
    failed = [line.split()[1] for line in out.splitlines() if line.split()[0] == "failed"]
    assert (code, "exactness" in failed) == (1, True)


@pytest.fixture
def tracks(here: Path) -> list[Track]:
    """A done run and one under way."""
    suite = load_suite("tiny.yaml", ["protocol.seeds=[0,1]"])
    done, moving = (Track(run) for run in Session(replace(suite, methods=["scratch"])).runs)
    done.done = done.run.predicted()
    moving.done = moving.run.predicted()[:1]
    moving.waiting_for = moving.run.next_stage(moving.done)
    assert moving.waiting_for is not None
    position = moving.done[0][1].end.after(flops=1e7)
    moving.tick = Tick(moving.waiting_for.id, position, 4.25)
    return [done, moving]


def test_a_terminal_shows_the_runs_that_end_and_below_them_the_stages_at_work(
    tracks: list[Track],
) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24, highlight=False)
    tracks[1].setbacks.append("its process was killed; trying again, 1 of 2")
    with Display(console, [track.run for track in tracks]) as shown:
        shown.show(tracks)
        shown.show(tracks)
        console.print(shown.table([tracks[1]], tracks))
    text = file.getvalue()
    assert "1 of 2 runs ended" in text
    assert text.count("scratch seed 1: its process was killed; trying again, 1 of 2") == 1
    row = next(line for line in text.splitlines() if line.startswith(" scratch"))
    assert row.split()[:2] == ["scratch", "1"]
    assert "4.2500" in row


MISTAKES = {
    "unknown suite": (["run", "smok"], "unknown suite 'smok'; did you mean smoke?"),
    "no suite file": (["run", "absent.yaml"], "no suite file absent.yaml"),
    "unknown method": (
        ["run", "tiny.yaml", "--method", "stackin"],
        "unknown method 'stackin'; did you mean stacking",
    ),
    "same method twice": (["run", "tiny.yaml", "--method", "scratch"], "methods: ['scratch']"),
    "unknown key": (
        ["run", "tiny.yaml", "protocol.budget_flop=1e9"],
        "unknown key protocol.budget_flop; did you mean protocol.budget_flops?",
    ),
    "unknown nested key": (
        ["run", "tiny.yaml", "protocol.learning_rate.peek=1"],
        "unknown key protocol.learning_rate.peek; did you mean protocol.learning_rate.peak?",
    ),
    "not a setting": (["run", "tiny.yaml", "quickly"], "'quickly' is not of the form key=value"),
    "not a number": (["run", "tiny.yaml", "workload.batch_size=big"],
        "workload.batch_size must be a whole number in [1, inf), got 'big'",
    ),
    "batch of nothing": (
        ["run", "tiny.yaml", "workload.batch_size=0"],
        "workload.batch_size must be a whole number in [1, inf), got 0",
    ),
    "unknown precision": (
        ["run", "tiny.yaml", "protocol.precision=8"],
        "protocol.precision must be one of ['32-true', 'tf32', 'bf16-mixed'], got '8'",
    ),
    "TF32 on a CPU": (
        ["run", "tiny.yaml", "protocol.precision=tf32"],
        "protocol.precision is tf32, which takes a GPU; allowed on a CPU: 32-true, bf16-mixed",
    ),
    "bad learning rate": (
        ["run", "tiny.yaml", "protocol.learning_rate.peak=-1"],
        "protocol.learning_rate.peak must be a number in (0, inf), got -1",
    ),
    "unknown corpus": (["run", "tiny.yaml", "workload.corpus=wikipeda"], "did you mean wikipedia"),
    "missing corpus file": (
        ["run", "tiny.yaml", "workload.corpus.path=gone.txt"],
        "cannot read or prepare corpus letters: [Errno 2] No such file or directory: 'gone.txt'",
    ),
    "no seeds": (["run", "tiny.yaml", "protocol.seeds=[]"], "protocol.seeds must be distinct"),
    "budget below one step": (
        ["run", "tiny.yaml", "protocol.budget_flops=1e7"],
        "protocol.budget_flops: 1e+07 FLOPs are too few for scratch",
    ),
    "budget without a step in the decay": (
        ["run", "tiny.yaml", "protocol.budget_flops=8e7"],
        "protocol.budget_flops: 8e+07 FLOPs are too few for scratch",
    ),
    "corpus shorter than the budget": (
        ["run", "tiny.yaml", "protocol.budget_flops=1e12"],
        "lower the budget or set protocol.allow_repeats=true",
    ),
    "corpus shorter than a window": (
        ["run", "tiny.yaml", "workload.corpus.splits.val_start=20",
         "workload.corpus.splits.test_start=0.5"],
        "one window of seq_len=32 needs 33",
    ),
    "an argument of the optimizer without default": (
        ["plan", "tiny.yaml", "protocol.tuning={trials: 2, seeds: [7],"
         " space: {optimizer.args.momentum: [0.5, 0.9]}}"],
        "protocol.tuning.space.optimizer.args.momentum needs its default, a number",
    ),
    "no operators": (
        ["plan", "tiny.yaml", "--method", "idle.yaml"],
        "cannot grow n_layer from 1 to 2: the method has no operators",
    ),
    "results below a file": (["run", "tiny.yaml", "run.results=letters.txt/x"], "run.results"),
    "cache below a file": (["run", "tiny.yaml", "run.cache=letters.txt/x"], "run.cache"),
    "report of nothing": (["report", "no/where"], "no/where/suite.yaml: cannot be read"),
    "report of an unknown suite": (["report", "tyny.yaml"], "no suite file tyny.yaml"),
    "report before a run": (["show", "tiny.yaml"], "growbench run tiny.yaml makes some"),
    "check of nothing": (["check", "nowhere:Method"], "cannot import 'nowhere:Method'"),
    "check of something else": (["check", "pathlib:Path"], "pathlib:Path is not a Baseline"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.usefixtures("here")
def test_a_mistake_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, out, err = growbench(capsys, *arguments)
    assert (code, out.removeprefix(FIRST_LINE.format(arguments[1]))) == (2, "")
    assert err.startswith("growbench: ")
    assert err.count("\n") == 1
    assert words in err
    assert not Path("results").exists()


METHOD_MISTAKES = {
    "target smaller than source": (
        "ladder: {shrink: {n_layer: 0.5}, n_growths: 1}",
        "method.odd: ladder.shrink.n_layer must be at least 1 (a target is never smaller than its "
        "source), got 0.5",
    ),
    "width that does not divide": (
        "ladder: {shrink: {n_head: 3}, n_growths: 1}",
        "method.odd: ladder.shrink.n_head=3.0 does not divide n_head=4",
    ),
    "size that it does not grow": (
        "ladder: {shrink: {n_head: 2}, n_growths: 1}",
        "method.odd: cannot grow n_head from 2 to 4: this grows ['n_layer']",
    ),
    "unknown key": ("ladder: {shrnk: {n_layer: 2}}", "unknown key ladder.shrnk; did you mean "),
    "unknown argument": ("args: {ordr: whole}", "has no 'ordr'; did you mean order?"),
    "bad argument": (
        "args: {order: up}",
        "method.odd.args: baselines.stacking:Stacking: order must",
    ),
    "unknown policy": (
        f"{LADDER}\nstate_policy: keep",
        "state_policy must be one of ['reset'",
    ),
    "when, but not what": ("role: method", "schedule is set, but method.odd.ladder.n_growths is 0"),
    "unknown role": ("role: hero", "role must be one of"),
}


@pytest.mark.parametrize(("more", "words"), METHOD_MISTAKES.values(), ids=METHOD_MISTAKES)
def test_a_mistake_in_a_method_is_one_line_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], more: str, words: str
) -> None:
    file = write_method(here, "odd", "baselines.stacking:Stacking", more)
    code, out, err = growbench(capsys, "run", "tiny.yaml", "--method", file)
    assert (code, out) == (2, FIRST_LINE.format("tiny.yaml"))
    assert err.startswith("growbench: ")
    assert err.count("\n") == 1
    assert words in err
    assert not Path("results").exists()


def test_two_commands_on_one_results_folder_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "results/local/tiny"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        code, _, err = growbench(capsys, "run", "tiny.yaml")
    assert code == 2
    assert err == (
        "growbench: results/local/tiny: another growbench command is working here; wait for it, "
        "or set run.results to another folder\n"
    )
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_damaged_record_is_named(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(trained / "results")
    log = next(trained.glob("results/local/tiny/runs/*.jsonl.gz"))
    lines = gzip.decompress(log.read_bytes())
    log.write_bytes(gzip.compress(lines.replace(b'"kind"', b'"kin', 1)))
    before[str(log.relative_to(trained / "results"))] = log.read_bytes()
    code, _, err = growbench(capsys, "report", "results/local/tiny")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{log.relative_to(trained)}, line 1: damaged record" in err
    assert contents(trained / "results") == before


@pytest.mark.slow
def test_a_damaged_stage_is_named(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for result in trained.glob(".growbench/stages/*/result.json"):
        result.write_text("{")
    code, _, err = growbench(capsys, "run", "tiny.yaml", "methods=[scratch]")
    assert (code, err.count("\n")) == (2, 1)
    assert "result.json: damaged; delete the folder .growbench/stages/" in err


def test_a_flipped_byte_in_a_prepared_corpus_is_noticed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["workload.corpus=synthetic", "workload.corpus.size=40000"]
    unchecked = [*settings, "workload.corpus.sha256=''"]
    corpus = load_suite("tiny.yaml", unchecked).workload.corpus
    digest = load(corpus, here / ".growbench/corpora").sha256
    prepared = here / f".growbench/corpora/synthetic/{digest}.bin"
    damaged = bytearray(prepared.read_bytes())
    damaged[1000] ^= 1
    prepared.write_bytes(damaged)
    settings.append(f"workload.corpus.sha256={digest}")
    code, _, err = growbench(capsys, "run", "tiny.yaml", *settings)
    assert (code, err.count("\n")) == (2, 1)
    assert "delete it to prepare it again) has sha256 " in err
    assert not Path("results").exists()
