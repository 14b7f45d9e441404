"""What all tests share: the equation ledger's recorder, and where the built book lies.

`pytest tests/equations --ledger FILE` writes which equation was checked, how, and with what outcome. The file is
written only on that option and only as a whole, so a run of a few tests cannot spoil it.
"""

import json
import os
from pathlib import Path

import pytest
from nbval.kernel import RunningKernel

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "_build"
RECORDS = pytest.StashKey[dict[str, dict]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ledger", metavar="FILE", help="write the outcome of all equation tests to FILE (JSON)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORDS] = {}
    if config.getoption("--nbval", default=False):
        RunningKernel.execute_cell_input = execute_with_history


def execute_with_history(kernel: RunningKernel, source: str, allow_stdin: bool | None = None) -> str:
    """Execute a cell for nbval, and keep it in the kernel's history, as Jupyter does.

    IPython looks there for the semicolon at the end of a cell that hides its result; nbval keeps no history.
    """
    return kernel.kc.execute(source, allow_stdin=allow_stdin, stop_on_error=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    mark = item.get_closest_marker("equation")
    if mark is None:
        return report
    record = item.config.stash[RECORDS].setdefault(
        item.nodeid,
        {"label": mark.args[0], "test": item.nodeid, "outcome": "passed", "seconds": 0.0, **mark.kwargs},
    )
    record["seconds"] = round(record["seconds"] + report.duration, 4)
    if not report.passed:  # a skipped check is no check
        record["outcome"] = report.outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--ledger")
    if path is None:
        return
    records = sorted(session.config.stash[RECORDS].values(), key=lambda record: (record["label"], record["test"]))
    write_atomically(Path(path), json.dumps({"version": 1, "records": records}, indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to a neighbour of `path`, then rename: nobody ever reads half a ledger."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


@pytest.fixture(scope="session")
def site() -> Path:
    """Return the folder of the built site; skip where there is none."""
    folder = BUILD / "html"
    if not (folder / "index.html").exists():
        pytest.skip("the book is not built: run `make book` first")
    return folder
