"""Read the tables of a running study by other programs: python -m benchmarks.readers [--seconds 60] [--quick].

One thread writes epochs and trials as a study does, but `--flushes` times a second, with starts, ends and epochs that
are trained again. Meanwhile each program reads both tables over and over, in a process of its own: pandas, PyArrow,
and, where they are installed, DuckDB and Polars, from a folder and from an S3 server on loopback (moto). A reading that
raises an error, finds a row twice, or lacks a row that had been written before it began is a fault.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pyarrow import fs

from benchmarks.reporting import describe_machine, format_result, format_table
from study.atomic import atomic_write
from study.records.parquet_table import Records
from study.storage.mirror import NO_MIRROR, Mirror

LOCAL = {
    "pandas": "pandas.read_parquet('{folder}')",
    "pyarrow": "pyarrow.dataset.dataset('{folder}').to_table().to_pandas()",
    "duckdb": "duckdb.sql(\"FROM '{folder}/*.parquet'\").df()",
    "polars": "polars.scan_parquet('{folder}/*.parquet').collect().to_pandas()",
}
REMOTE = {
    "pandas": "pandas.read_parquet('{folder}', filesystem=s3)",
    "pyarrow": "pyarrow.dataset.dataset('{folder}', filesystem=s3).to_table().to_pandas()",
}
"""How each program reads a table, from a folder and from S3."""

PLACES, EPOCHS = 4, 12
"""The simulated study: trials at once, and epochs of each."""
LEAST_FLUSHES = 2 * EPOCHS
"""Two generations of trials: a busy machine may write no more in a short run, and rows are replaced at their ends."""

FAULTS = ("errors", "twice", "lost")

READ = """
import importlib, json, os, sys, time
from pathlib import Path
import pandas, pyarrow.dataset
from pyarrow import fs
library, *paths = sys.argv[1:]
ready, progress, done = map(Path, paths)
globals()[library] = importlib.import_module(library)
import pyarrow
endpoint = os.environ.get("AWS_ENDPOINT_URL", "").removeprefix("http://")
s3 = fs.S3FileSystem(endpoint_override=endpoint, scheme="http") if endpoint else None
found = {"reads": 0, "errors": 0, "twice": 0, "lost": 0, "first": ""}
ready.touch()
while not progress.exists():
    time.sleep(0.02)
while not done.exists():
    least = json.loads(progress.read_text())
    for table, key in (("trials", ["trial_id"]), ("epochs", ["trial_id", "epoch"])):
        found["reads"] += 1
        try:
            rows = TRIALS if table == "trials" else ROWS_OF_EPOCHS
        except Exception as error:
            found["errors"] += 1
            found["first"] = found["first"] or f"{type(error).__name__}: {error}"[:300]
        else:
            found["twice"] += bool(rows.duplicated(key).any())
            found["lost"] += len(rows) < least[table]
print(json.dumps(found))
"""


def write_study(records: Records) -> Iterator[dict[str, int]]:
    """Write rows as a study does; yield the number of rows of each table after each flush."""
    trials = epochs = 0
    while True:
        names = [f"t{trials + place}" for place in range(PLACES)]
        for name in names:
            records.add_trial(_make_trial(name, "RUNNING"), {})
        trials += PLACES
        for epoch in range(1, EPOCHS + 1):
            for name in names:
                records.epochs.append(_make_epoch(name, epoch))
                if epoch == EPOCHS:
                    records.epochs.append(_make_epoch(name, epoch - 1))  # again, as after a kill
                    records.add_trial(_make_trial(name, "COMPLETE"), {})
            epochs += PLACES
            records.flush()
            yield {"trials": trials, "epochs": epochs}


def _make_trial(name: str, state: str) -> dict[str, Any]:
    done = EPOCHS if state == "COMPLETE" else 0
    texts = {"cell": "s / a", "student": "s", "arm": "a", "phase": "search", "config": json.dumps({"x": name})}
    return {"trial_id": name, "state": state, "epochs_done": done, "started": datetime.now(UTC), **texts}


def _make_epoch(name: str, epoch: int) -> dict[str, Any]:
    row = {"trial_id": name, "cell": "s / a", "phase": "search", "epoch": epoch, "seconds": 0.5}
    return {**row, "recorded": datetime.now(UTC), "schedules": "{}", "val/accuracy": epoch / EPOCHS}


def measure(readers: dict[str, str], folder: Path, flushes: float, seconds: float, mirror: Mirror = NO_MIRROR) -> Any:
    """Read for some seconds while a study is written; return the counts of each reader, and the number of flushes."""
    progress, done = folder / "progress.json", folder / "done"
    study = write_study(Records(folder / "x", ["val/accuracy", "test/accuracy"]))
    first = next(study)  # before the time starts: a process's first flush takes longer
    mirror.push("x/epochs", "x/trials")
    place = mirror.uri.removeprefix("s3://") or str(folder)
    ready = {name: folder / f"{name} is ready" for name in readers}
    processes = {name: _start(name, call, f"{place}/x", ready[name], progress, done) for name, call in readers.items()}
    while any(processes[name].poll() is None and not ready[name].exists() for name in readers):
        time.sleep(0.02)
    with atomic_write(progress) as temporary:
        temporary.write_text(json.dumps(first))
    deadline, count = time.monotonic() + seconds, 1
    for written in study:
        mirror.push("x/epochs", "x/trials")
        with atomic_write(progress) as temporary:
            temporary.write_text(json.dumps(written))
        count += 1
        if time.monotonic() > deadline and count >= LEAST_FLUSHES:
            break
        time.sleep(1 / flushes)
    done.touch()
    return {name: json.loads(process.communicate()[0]) for name, process in processes.items()}, count


def _start(name: str, call: str, folder: str, *paths: Path) -> subprocess.Popen[str]:
    code = READ.replace("TRIALS", call.format(folder=f"{folder}/trials"))
    code = code.replace("ROWS_OF_EPOCHS", call.format(folder=f"{folder}/epochs"))
    return subprocess.Popen([sys.executable, "-c", code, name, *paths], stdout=subprocess.PIPE, text=True)


def measure_s3(folder: Path, flushes: float, seconds: float) -> Any:
    """Measure the readers of S3 on a server on loopback."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it prints each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    os.environ.update(keys | {"AWS_ENDPOINT_URL": endpoint})
    try:
        address = endpoint.removeprefix("http://")
        fs.S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True).create_dir("bucket")
        return measure(REMOTE, folder, flushes, seconds, Mirror(folder, "s3://bucket", endpoint, "us-east-1"))
    finally:
        server.stop()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="Duration of each part.")
@click.option("--flushes", type=click.FloatRange(min=0.1), default=10, show_default=True, help="Flushes a second.")
@click.option("--quick", is_flag=True, help="A second or two of each.")
def main(seconds: float, flushes: float, quick: bool) -> None:
    """Read a running study's tables by other programs, and count faults."""
    print("\n".join(describe_machine()), flush=True)
    seconds, flushes = (1.0, 20.0) if quick else (seconds, flushes)
    readers = {name: call for name, call in LOCAL.items() if importlib.util.find_spec(name)}
    rows, total = [("from", "reader", "flushes", "reads", *FAULTS, "first error")], dict.fromkeys(("reads", *FAULTS), 0)
    with tempfile.TemporaryDirectory(prefix="kdstudy-readers-") as scratch:
        for name in ("folder", "S3") if importlib.util.find_spec("moto") else ("folder",):
            folder = Path(scratch, name)
            folder.mkdir()
            arguments = folder, flushes, seconds
            found, count = measure(readers, *arguments) if name == "folder" else measure_s3(*arguments)
            for reader, counts in found.items():
                total = {key: value + counts[key] for key, value in total.items()}
                shown = [str(counts[key]) for key in ("reads", *FAULTS, "first")]
                rows.append((name, reader, str(count), *shown))
    print(format_table(rows))
    print()
    print(format_result("reads", [total["reads"]], "readings"))
    print(format_result("readings_wrong", [sum(total[name] for name in FAULTS)], "readings"))


if __name__ == "__main__":
    main()
