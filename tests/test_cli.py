"""The command line as a whole: help, progress, failures, and the commands about what is in the box."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

import depthup.cli
import depthup.commands.info
from cli_helpers import GOOD, RECORD, command_line, small_net, write_pairs
from depthup.cli import main
from depthup.console import progress_bar
from depthup.data import read_depth, read_rgb
from depthup.weights import save_weights

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("export", "x4", "-o", "x4.bin"), 2, ["x4.bin", ".onnx, .pt2"]),
        (("export", "x7", "-o", "x7.onnx"), 2, ["x7: no such model"]),
        (("export", "bicubic", "-o", "x7.onnx"), 2, ["bicubic: is a baseline, which has no weights"]),
        (("downsample",), 2, ["downsample"]),
        (("--nonsense",), 2, ["--nonsense"]),
        (("models", "x4"), 2, ["x4"]),
        (("info", "--verbose"), 2, ["--verbose"]),
    ],
    ids=command_line,
)
def test_every_mistake_is_one_line_and_leaves_nothing_behind(check_mistake, arguments, code, parts):
    check_mistake(arguments, code, parts)


def test_models(place, depthup_):
    result = depthup_("models", "--json")
    assert (result.code, result.err) == (0, "")
    facts = json.loads(result.out)
    assert facts == json.loads(depthup_("info", "--json").out)["models"]
    assert facts["x4"]["parameters"] == sum(p.numel() for p in small_net(4).parameters())
    assert facts["x4"]["bytes"] == (place / "box" / "x4.safetensors").stat().st_size
    lines = depthup_("models").out.splitlines()
    assert lines[0].split()[:4] == ["model", "scale", "protocol", "for"]
    assert [line.split()[:3] for line in lines[1:3]] == [["x2", "x2", "dkn"], ["x4", "x4", "dkn"]]
    assert "1.500 cm" in lines[1]
    assert "3" in lines[1].split()


def test_info(place, depthup_, monkeypatch):
    monkeypatch.setattr(depthup.commands.info, "RECIPES", {"x2": ({"steps": 5}, {"steps": 6})})
    result = depthup_("info", "--json")
    assert (result.code, result.err) == (0, "")
    facts = json.loads(result.out)
    assert set(facts) == {"versions", "threads", "backends", "models"}
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["backends"]["reference"] is None
    assert set(facts["backends"]) == {"reference", "cpu", "cuda"}
    assert set(facts["models"]) == {"x2", "x4"}
    assert facts["models"]["x4"] == {
        "scale": 4,
        "architecture": "base",
        "protocol": "dkn",
        "sensor": False,
        "parameters": sum(p.numel() for p in small_net(4).parameters()),
        "bytes": (place / "box" / "x4.safetensors").stat().st_size,
        "data": "boxes",
        "steps": 12,
        "held_out_rmse": 1.5,
        "unit": "cm",
        "held_out_images": 3,
    }
    assert facts["models"]["x2"]["steps"] == 11
    text = depthup_("info")
    assert text.code == 0
    for part in ("depthup", torch.__version__, "reference", "x4"):
        assert part in text.out


def test_demo(place, depthup_):
    save_weights(place / "box" / "x8.safetensors", small_net(8), RECORD)
    result = depthup_("demo", "--json")
    assert result.code == 0  # matplotlib may narrate that it builds its font cache
    facts = json.loads(result.out)
    assert (facts["scale"], facts["size"]) == (8, [736, 496])
    assert set(facts["rmse_cm"]) == {"bicubic", "depthup"}
    assert sorted(p.name for p in (place / "demo").iterdir()) == sorted(f"{name}.png" for name in facts["files"])
    assert read_depth(facts["files"]["depth"]).shape == read_rgb(facts["files"]["rgb"]).shape[:2] == (496, 736)
    assert read_depth(facts["files"]["low"]).shape == (62, 92)
    again = depthup_("demo")
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "exists already" in again.err


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess:
    code = f"import sys; sys.modules['{module}'] = None; sys.argv = {['depthup', *arguments]}"
    return subprocess.run(
        [sys.executable, "-c", f"{code}; import depthup.cli as c; c.main()"], capture_output=True, text=True
    )


@pytest.mark.parametrize("library", ["torch", "cv2", "safetensors", "matplotlib"])
def test_a_library_that_cannot_be_imported_is_one_line(place, library):
    """As with too little memory for it, or where the system lacks what it needs."""
    result = run_without(library, *GOOD, "--preview", "preview.png")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.stderr
    assert result.stderr.startswith("depthup: a library that it needs cannot be imported (import of ")


def test_a_module_of_ours_that_cannot_be_imported_is_a_bug(place):
    assert "Traceback" in run_without("depthup.tiles", *GOOD).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_folder_that_is_gone(tmp_path):
    command = f"mkdir gone && cd gone && rmdir ../gone && {shlex.quote(sys.executable)} -m depthup --version"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith("depthup: the current folder cannot be used (No such file or directory)")


def test_the_matplotlib_backend_of_a_notebook_is_not_needed(place):
    """A notebook hands its own to every command that is run from it."""
    command = [sys.executable, "-m", "depthup", *GOOD, "--model", "bicubic", "--preview", "preview.png"]
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert (place / "preview.png").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
def test_a_name_that_cannot_be_printed(place):
    write_pairs(place / "pairs")
    (place / "pairs").rename(os.fsdecode(b"pairs-\xff"))
    command = [sys.executable, "-m", "depthup", "eval", "--data", b"pairs-\xff", "--scale", "4", "--model", "bicubic"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "pairs-\\udcff" in result.stdout


@pytest.mark.parametrize("behind", [False, True])
def test_ctrl_c_is_130(place, depthup_, monkeypatch, behind):
    """Also where a library that is being imported makes another exception of it."""

    def interrupt(*arguments):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            if behind:
                raise RuntimeError("Error calling __set_name__") from error
            raise

    monkeypatch.setattr("depthup.pair_files.read_rgb", interrupt)
    result = depthup_(*GOOD)
    assert (result.code, result.err) == (130, "depthup: interrupted\n")


def test_exceptions_that_are_each_others_cause_end():
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__context__ = second, first
    assert not depthup.cli._is_interrupted(first)
    second.__context__ = KeyboardInterrupt()
    assert depthup.cli._is_interrupted(first)


@pytest.mark.parametrize(("bug", "raised"), [(ZeroDivisionError, ZeroDivisionError), (EOFError, typer.Abort)])
def test_a_bug_is_not_hidden(place, monkeypatch, bug, raised):
    def fail(*arguments):
        raise bug("a bug")

    monkeypatch.setattr("depthup.pair_files.read_rgb", fail)
    monkeypatch.setattr(sys, "argv", ["depthup", *GOOD])
    with pytest.raises(raised):
        main()


LEAVES = """
import atexit, sys
from depthup import cli
class Module:
    def __del__(self):
        print("taken apart")
sys.modules["kept"] = Module()
atexit.register(print, "registered", flush=True)
sys.stdout.write("unfinished line, ")
sys.argv = ["depthup", *sys.argv[1:]]
cli.program()
"""


@pytest.mark.parametrize(
    ("argument", "code", "end"), [("--version", 0, "\nregistered\n"), ("--nothing", 2, "registered\ntaken apart\n")]
)
def test_after_success_modules_are_not_taken_apart(argument, code, end):
    result = subprocess.run([sys.executable, "-c", LEAVES, argument], capture_output=True, text=True)
    assert result.returncode == code
    assert result.stdout.startswith("unfinished line, ")
    assert result.stdout.endswith(end)


def test_without_arguments_it_helps(depthup_):
    result = depthup_()
    for command in ("upsample", "eval", "compare", "train", "models", "info"):
        assert command in result.out
    assert result.err == ""


def test_progress_is_silent_where_nobody_sees_it(capfd, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with progress_bar(delay=0) as progress:
        progress("working", 0.5)
    assert capfd.readouterr() == ("", "")


def test_a_log_gets_a_line_every_minute(capfd, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    clock = 0.0
    monkeypatch.setattr("depthup.console.time.monotonic", lambda: clock)
    with progress_bar() as progress:
        for second in range(0, 150, 10):
            clock = float(second)
            progress("evaluating", second / 300)
    assert capfd.readouterr().err.splitlines() == [
        "depthup: evaluating: 20% after 1 min",
        "depthup: evaluating: 40% after 2 min",
    ]


HELP = """
import contextlib, io, sys
from depthup.cli import main
for command in ([], ["upsample"], ["batch"], ["export"], ["eval"], ["compare"], ["train"], ["models"], ["info"]):
    sys.argv = ["depthup", *command, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        main()
    assert "Usage" in out.getvalue(), command
print(sorted({"torch", "numpy", "cv2", "numba", "matplotlib", "scipy"} & set(sys.modules)))
"""


def test_help_does_not_import_torch():
    result = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell's redirections")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "2>/dev/full"])
def test_without_a_stream(place, closed):
    command = f"{sys.executable} -m depthup upsample rgb.png depth.png -o out.png --model bicubic {closed}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")
    assert "Error" not in result.stderr
    assert (place / "out.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_what_cannot_be_printed_is_told(place):
    command = f"{sys.executable} -m depthup models --json >/dev/full"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "depthup: stdout: cannot be written: [Errno 28] No space left on device\n"


def test_without_the_compiler_of_numba_the_reference_runs(place):
    command = [sys.executable, "-m", "depthup", "upsample", "rgb.png", "depth.png", "-o"]
    for name, environment in (("compiled.npy", {}), ("plain.npy", {"NUMBA_DISABLE_JIT": "1"})):
        result = subprocess.run([*command, name], capture_output=True, text=True, env=os.environ | environment)
        assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.load("plain.npy"), np.load("compiled.npy"), atol=1e-4)


def test_from_a_checkout():
    result = subprocess.run([sys.executable, "cli.py", "--help"], capture_output=True, text=True, cwd=CHECKOUT)
    assert result.returncode == 0
    assert "upsample" in result.stdout
    assert result.stderr == ""


def test_as_a_module(place):
    command = [sys.executable, "-m", "depthup", "upsample", "rgb.png"]
    good = subprocess.run([*command, "depth.png", "-o", "out.png", "--model", "bicubic", "--json"], capture_output=True)
    assert (good.returncode, good.stderr) == (0, b"")
    assert json.loads(good.stdout)["ratio"] == [4, 4]
    bad = subprocess.run([*command, "cut-depth.png", "-o", "bad.png"], capture_output=True, text=True)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("depthup: cut-depth.png: ")
    assert bad.stderr.count("\n") == 1
    assert not (place / "bad.png").exists()


def test_modules_are_there_without_an_import_of_their_own():
    code = "import depthup; print(depthup.data.read_depth.__name__, hasattr(depthup, 'nothing'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "read_depth False\n"), run.stderr
