"""The store: nothing half-written, nothing silently damaged, nothing lost."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from planner.calibration.store import SCHEMAS, Store
from planner.models.errors import InputError, StoreError
from planner.models.records import Machine, Sample, Timing

SAMPLE = Sample(
    model="m", task="chain", problem_id="p", prompt="A1+1:", temperature=0.6, top_p=1.0,
    max_tokens=64, draw=0, seed=2**63 - 1, text="001+1=002", answer="002", correct=True,
    score=None, finish_reason="stop", prompt_tokens=7, output_tokens=10, ttft_s=0.01,
    latency_s=0.1, logprob=-1.5, engine="embedded 0.1.0", machine="abc", source="measured",
    measured_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip
TIMING = Timing(
    model="m", phase="decode", batch=8, context_tokens=64, repeat=0, seconds=1e-3, flop=1e6,
    moved_bytes=1e5, kv_bytes=1e4, engine="embedded 0.1.0", machine="abc",
    source="measured", measured_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip
MACHINE = Machine(
    machine="abc", device="CPU, 2 cores", cores=2, memory_bytes=8e9, os="Linux",
    python="3.11", numpy="2.0", blas="openblas", flop_per_s=1e11, bytes_per_s=1e10,
    source="measured", measured_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "measurements")


def draws(count: int, **changes: object) -> list[Sample]:
    return [replace(SAMPLE, draw=i, **changes) for i in range(count)]


def parts(store: Store, dataset: str = "samples") -> list[Path]:
    return sorted((store.folder / dataset).glob("part-*.parquet"))


def test_an_empty_store_has_columns_and_no_rows(store):
    frames = {
        "samples": store.samples(),
        "executed": store.samples("executed"),
        "timings": store.timings(),
        "machines": store.machines(),
    }
    for dataset, frame in frames.items():
        assert list(frame.columns) == list(SCHEMAS[dataset])
        assert frame.empty
    assert store.sample_counts().empty
    assert not store.folder.exists()  # reading creates nothing


def test_rows_come_back_as_they_went_in(store):
    rows = [*draws(3), replace(SAMPLE, draw=3, score=-2.5, logprob=None, correct=False)]
    store.append_samples(rows)
    store.append_timings([TIMING])
    store.append_machine(MACHINE)
    back = [
        Sample(**{k: None if pd.isna(v) else v for k, v in row.items()})
        for row in store.samples().to_dict("records")
    ]
    assert back == rows
    assert Timing(**store.timings().to_dict("records")[0]) == TIMING
    assert Machine(**store.machines().to_dict("records")[0]) == MACHINE


def test_parts_follow_each_other_and_never_change(store):
    store.append_samples(draws(2))
    before = {part: part.read_bytes() for part in parts(store)}
    store.append_samples(draws(2, problem_id="q"))
    store.append_samples([])
    assert [part.name[:11] for part in parts(store)] == ["part-000001", "part-000002"]
    assert {part: part.read_bytes() for part in before} == before
    assert store.samples()["problem_id"].tolist() == ["p", "p", "q", "q"]


def test_a_machine_is_kept_once(store):
    store.append_machine(MACHINE)
    store.append_machine(replace(MACHINE, flop_per_s=2e11))
    assert store.machines()["flop_per_s"].tolist() == [1e11]
    assert len(parts(store, "machines")) == 1


def test_counts_are_per_setting_and_a_draw_counts_once(store):
    store.append_samples(draws(4))
    store.append_samples(draws(3))  # two runs that measured the same draws
    store.append_samples(draws(2, temperature=1.0, correct=False))
    counts = store.sample_counts()
    assert counts[["temperature", "n_samples", "n_correct"]].to_numpy().tolist() == [
        [0.6, 4, 4],
        [1.0, 2, 0],
    ]
    assert len(store.samples()) == 6


def test_executed_draws_repeat_freely_and_stay_apart(store):
    store.append_samples(draws(1), dataset="executed")
    store.append_samples(draws(1), dataset="executed")
    assert len(store.samples("executed")) == 2
    assert store.samples().empty


def test_queries_see_all_four_datasets(store):
    store.append_samples(draws(5))
    store.append_timings([TIMING])
    counted = store.query(
        "SELECT (SELECT count(*) FROM samples) AS s, (SELECT count(*) FROM timings) AS t,"
        " (SELECT count(*) FROM executed) AS e, (SELECT count(*) FROM machines) AS m"
    )
    assert counted.to_numpy().tolist() == [[5, 1, 0, 0]]
    with pytest.raises(InputError, match="nowhere"):
        store.query("SELECT * FROM nowhere")


def test_the_digest_changes_with_the_rows(store):
    empty = store.rows_sha256()
    store.append_samples(draws(1))
    one = store.rows_sha256()
    store.append_samples(draws(1), dataset="executed")  # no law is fitted to these
    assert store.rows_sha256() == one
    store.append_timings([TIMING])
    assert len({empty, one, store.rows_sha256()}) == 3


def _flip(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)


def _truncate(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-10])


def _replace_by_text(part: Path) -> None:
    part.write_text("not Parquet")


@pytest.mark.parametrize("damage", [_flip, _truncate, _replace_by_text])
@pytest.mark.parametrize("read", [Store.samples, Store.sample_counts, Store.rows_sha256])
def test_damage_is_noticed_and_named(store, damage, read):
    store.append_samples(draws(20))
    store.append_samples(draws(20, problem_id="q"))
    read(store)  # a part that was read before is looked at again
    culprit = parts(store)[1]
    damage(culprit)
    with pytest.raises(
        StoreError, match="delete that part and run `planner calibrate`"
    ) as e:
        read(store)
    assert str(culprit) in str(e.value)
    culprit.unlink()  # what the message says helps
    assert len(store.samples()) == 20


def test_foreign_files_are_named(store):
    store.append_samples(draws(1))
    store.append_timings([TIMING])
    timing = parts(store, "timings")[0]
    misplaced = store.folder / "samples" / timing.name.replace("000001", "000007")
    misplaced.write_bytes(timing.read_bytes())
    with pytest.raises(StoreError, match="columns of samples"):
        store.samples()
    misplaced.rename(misplaced.with_name("export.parquet"))
    with pytest.raises(StoreError, match=r"export\.parquet"):
        store.samples()


def test_rows_that_do_not_fit_are_refused_whole(store):
    for wrong in (
        replace(SAMPLE, draw=1, output_tokens="ten"),
        replace(SAMPLE, draw=1, text=None),
    ):
        with pytest.raises(InputError, match="samples"):
            store.append_samples([SAMPLE, wrong])
    assert store.samples().empty


@contextmanager
def tiny_disk() -> Iterator[None]:
    # not a fixture: pytest writes its dots before it tears fixtures down, maybe to a file
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_error_and_leaves_nothing(store):
    with tiny_disk(), pytest.raises(StoreError, match="cannot be written"):
        store.append_samples(draws(2000))
    assert parts(store) == []
    assert store.samples().empty


def test_leftovers_of_a_killed_run_are_ignored_then_removed(store):
    store.append_samples(draws(1))
    leftover = store.folder / "samples" / f".{parts(store)[0].name}.12345.tmp"
    leftover.write_bytes(b"half a par")
    assert len(store.samples()) == 1
    store.append_samples(draws(1, problem_id="q"))
    assert not leftover.exists()
    assert len(store.samples()) == 2


def test_writers_do_not_clobber_each_other(store):
    def write(writer: int) -> None:
        mine = Store(store.folder)  # a lock of its own, as in another process
        for i in range(15):
            mine.append_samples([replace(SAMPLE, problem_id=f"{writer}-{i}")])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert store.samples()["problem_id"].nunique() == 45
    sequence = [part.name[:11] for part in parts(store)]
    assert len(set(sequence)) == len(sequence) == 45


_ENDLESS = """
import sys
from dataclasses import replace
from pathlib import Path
from planner.calibration.store import Store
from planner.models.records import Sample
import json
sample = Sample(**json.loads(sys.argv[2]))
store = Store(Path(sys.argv[1]))
for i in range(10**6):
    store.append_samples([replace(sample, problem_id=f"{i}-{j}") for j in range(50)])
    print(i, flush=True)
"""


def test_a_kill_at_any_point_leaves_whole_parts(store):
    row = json.dumps(SAMPLE.__dict__)
    for round_ in range(2):
        command = [sys.executable, "-c", _ENDLESS, str(store.folder), row]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.013 * round_)
        process.kill()
        told = 1 + len(process.stdout.read().split())
        process.stdout.close()
        process.wait()
        written = store.query("SELECT count(*) AS n FROM samples")["n"].item()
        assert written % 50 == 0
        assert written >= 50 * told
        assert len(store.samples()) > 0  # no checksum is off
