"""Logs of inspect-ai, laid out as its two writers lay them out, and zips that lie."""

import json
import pickle
import struct
import zipfile
import zlib

import duckdb
import pytest

from planner.calibration import import_rows, import_zip
from planner.calibration.import_rows import ImportOptions, WrongRowsError
from planner.calibration.importers import import_results
from planner.calibration.store import Store
from planner.models.errors import InputError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "measurements")


def sample(item="a", epoch=1, value="C", **more):
    usage = {"input_tokens": 7, "output_tokens": 30, "total_tokens": 37}
    return {
        "id": item, "epoch": epoch, "target": "4",
        "input": [{"role": "user", "content": "2+2?"}],
        "output": {
            "model": "p/m", "completion": "it is 4",
            "choices": [{"message": {"content": "it is 4"}, "stop_reason": "max_tokens"}],
        },
        "scores": {"match": {"value": value, "answer": "4", "explanation": "it is 4"}},
        "model_usage": {"p/grader": {"input_tokens": 1, "output_tokens": 1}, "p/m": usage},
        "total_time": 2.5, "working_time": 1.5,
        "completed_at": "2025-03-02T10:11:12+00:00", **more,
    }  # fmt: skip


def header(task_id="T1", run_id="R1", created="2025-03-02T10:00:00+00:00", **more):
    return {
        "version": 2, "status": "success",
        "eval": {
            "task": "sums", "task_id": task_id, "run_id": run_id, "created": created,
            "model": "p/m", "model_generate_config": {"temperature": 0.1, "seed": 3},
            "packages": {"inspect_ai": "0.3.100"},
        },
        "plan": {"config": {"temperature": 0.8, "max_tokens": 64}}, **more,
    }  # fmt: skip


def json_log(path, samples, **more):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**header(**more), "samples": samples}))
    return path


def eval_log(path, samples, *, method=zipfile.ZIP_DEFLATED, **more):
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as file:
        for i, one in enumerate(samples):
            file.writestr(f"samples/../../{i}_epoch_1.json", json.dumps(one))
        file.writestr("header.json", json.dumps(header(**more)))
    return path


def zstd_log(path, samples, scratch):
    """As inspect writes by default; Python's zipfile cannot, so the headers are patched."""
    names = {f"samples/{i}_epoch_1.json": one for i, one in enumerate(samples)}
    content = {n: json.dumps(one) for n, one in {**names, "header.json": header()}.items()}
    with zipfile.ZipFile(path, "w") as file:
        for member, written in content.items():
            squeezed = scratch / "member.zst"
            duckdb.execute(
                f"COPY (SELECT ? AS x) TO '{squeezed}' (FORMAT csv, HEADER false, "
                "QUOTE '', ESCAPE '', DELIMITER '\x01', COMPRESSION zstd)", [written],
            )  # fmt: skip
            file.writestr(member, squeezed.read_bytes())
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        infos = file.infolist()
    at = raw.index(b"PK\x01\x02")
    for info in infos:
        written = content[info.filename].encode()
        for place in (info.header_offset + 8, at + 10):
            struct.pack_into("<H", raw, place, 93)
            struct.pack_into("<I", raw, place + 6, zlib.crc32(written))
            struct.pack_into("<I", raw, place + 14, len(written))
        at += 46 + len(info.filename.encode()) + len(info.extra) + len(info.comment)
    path.write_bytes(raw)
    return path


def logged(kind, folder, samples):
    folder.mkdir(exist_ok=True)
    if kind == "json":
        return json_log(folder / "log.json", samples)
    if kind == "zstd":
        return zstd_log(folder / "log.eval", samples, folder)
    return eval_log(folder / "log.eval", samples)


@pytest.mark.parametrize("kind", ["json", "deflate", "zstd"])
def test_an_inspect_log(store, tmp_path, kind):
    samples = [sample("a"), sample("a", 2, "I"), sample(5, 1, 1.0), sample("é/x", 1, "N")]
    path = logged(kind, tmp_path / "in", samples)
    done = import_results(store, path)
    frame = store.samples()
    assert (done.added, done.no_tokens) == (4, 0)
    assert frame["problem_id"].tolist() == ["sums/a", "sums/a", "sums/5", "sums/é/x"]
    assert frame["draw"].tolist() == [0, 1, 0, 0]
    assert frame["correct"].tolist() == [True, False, True, False]
    one = frame.iloc[0]
    assert (one["model"], one["answer"], one["text"]) == ("p/m", "4", "it is 4")
    assert (one["prompt"], one["finish_reason"]) == ("2+2?", "length")
    assert (one["prompt_tokens"], one["output_tokens"]) == (7, 30)  # not the grader's
    assert (one["temperature"], one["max_tokens"], one["seed"]) == (0.8, 64, 3)
    assert (one["latency_s"], one["measured_at"][:10]) == (1.5, "2025-03-02")
    assert one["source"] == "transferred"
    assert import_results(store, path).added == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "measurements"]


def test_the_same_run_in_both_formats_counts_once(store, tmp_path):
    json_log(tmp_path / "in" / "a.json", [sample()])
    eval_log(tmp_path / "in" / "b.eval", [sample()])
    assert import_results(store, tmp_path / "in").added == 1


def test_of_the_attempts_at_a_task_the_last_counts(store, tmp_path):
    folder = tmp_path / "in"
    failed = {"run_id": "R1", "created": "2025-01-01T00:00:00+00:00"}
    again = {"run_id": "R2", "created": "2025-01-02T00:00:00+00:00"}
    json_log(folder / "z.json", [sample("a")], **failed)
    json_log(folder / "a.json", [sample("a"), sample("b")], **again)
    done = import_results(store, folder)
    assert done.added == 2
    assert any("z.json: left out, was tried again as a.json" in n for n in done.notes)
    with pytest.raises(InputError, match="another attempt"):
        import_results(store, folder / "z.json")


@pytest.mark.parametrize(("usage", "tokens"), [
    # of providers that leave reasoning or cached input out, the total tells
    ({"input_tokens": 5, "output_tokens": 10, "reasoning_tokens": 40, "total_tokens": 55},
     (5, 50)),
    ({"input_tokens": 5, "output_tokens": 50, "reasoning_tokens": 40, "total_tokens": 55},
     (5, 50)),
    ({"input_tokens": 5, "output_tokens": 10, "input_tokens_cache_read": 100,
      "total_tokens": 115}, (105, 10)),
])  # fmt: skip
def test_all_tokens_that_were_paid_for_count(store, tmp_path, usage, tokens):
    json_log(tmp_path / "log.json", [sample(model_usage={"p/m": usage})])
    import_results(store, tmp_path / "log.json")
    (row,) = store.samples().to_dict("records")
    assert (row["prompt_tokens"], row["output_tokens"]) == tokens


def test_samples_that_failed_are_told_and_not_graded(store, tmp_path):
    failed = sample("b", scores=None, error={"message": "timeout"})
    path = json_log(tmp_path / "log.json", [sample("a"), failed])
    done = import_results(store, path)
    assert done.added == 1
    assert any("1 x samples that ended in an error (b epoch 1)" in n for n in done.notes)


@pytest.mark.parametrize(("wrong", "message"), [
    (sample(value="P"), "score is 'P'"), (sample(value=0.5), "score is 0.5"),
    (sample(value={"a": 1}), "score"), (sample(value=float("nan")), "score is nan"),
    (sample("first"), "id and epoch"), (sample(None), "id is missing"),
    ([1], "JSON object"),
    (sample(scores={"other": 3}), "score of other"),
    (sample(model_usage={"p/m": {"input_tokens": -1}}), "input_tokens"),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["json", "deflate"])
def test_wrong_samples_are_named(store, tmp_path, kind, wrong, message):
    path = logged(kind, tmp_path / "in", [sample("first"), wrong])
    with pytest.raises(WrongRowsError, match=message):
        import_results(store, path)
    assert store.samples().empty


def test_a_scorer_can_be_chosen(store, tmp_path):
    scores = {"half": {"value": 0.5}, "match": {"value": "I"}}
    path = json_log(tmp_path / "log.json", [sample(scores=scores)])
    with pytest.raises(WrongRowsError, match="--metric NAME"):
        import_results(store, path)
    import_results(store, path, options=ImportOptions(metric="match"))
    assert not store.samples()["correct"].any()


def test_a_truncated_log_is_refused(store, tmp_path):
    for kind in ("deflate", "zstd", "json"):
        path = logged(kind, tmp_path / kind, [sample(str(i)) for i in range(5)])
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match="cannot be read"):
            import_results(store, path)


@pytest.mark.parametrize("kind", ["deflate", "zstd"])
def test_a_flipped_bit_is_noticed(store, tmp_path, kind):
    path = logged(kind, tmp_path / "in", [sample(str(i)) for i in range(3)])
    raw = bytearray(path.read_bytes())
    raw[150] ^= 16  # within the first sample
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"cannot be read|wrong row"):
        import_results(store, path)
    assert store.samples().empty


@pytest.mark.parametrize("kind", ["deflate", "zstd"])
def test_a_member_that_is_not_the_one_the_zip_lists_is_noticed(store, tmp_path, kind):
    path = logged(kind, tmp_path / "in", [sample("a")])
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.index(b"PK\x01\x02") + 16, 12345)  # its CRC
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"CRC|checksum"):
        import_results(store, path)


@pytest.mark.parametrize("kind", ["deflate", "zstd"])
def test_a_zip_bomb_is_refused(store, tmp_path, kind, monkeypatch):
    big = sample("a", input="x" * 3_000_000)
    path = logged(kind, tmp_path / "in", [big])
    assert path.stat().st_size < 30_000
    monkeypatch.setattr(import_zip, "JSON_BYTES", 2**20)
    with pytest.raises(InputError, match="over 1 MiB"):
        import_results(store, path)
    # a header that lies about the size is believed no further than it says
    raw = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", raw, raw.index(mark) + place, 1000)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="cannot be read"):
        import_results(store, path)


def test_other_compression_is_said_clearly(store, tmp_path):
    path = eval_log(tmp_path / "log.eval", [sample()])
    raw = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = raw.index(mark)
        struct.pack_into("<H", raw, at + place, 97)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"method 97 is not supported; .*convert"):
        import_results(store, path)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'{"eval": {"task": "t"}}', b"PK"])
def test_what_is_no_log_is_refused(store, tmp_path, content):
    for name in ("log.json", "log.eval"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            import_results(store, tmp_path / name)


def test_a_folder_of_nothing_says_what_was_expected(store, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="nothing to import; expected samples_"):
        import_results(store, tmp_path / "in")
    with pytest.raises(InputError, match="no such file or folder"):
        import_results(store, tmp_path / "nowhere")


def test_the_error_of_wrong_rows_pickles():
    wrong = import_rows.Wrong("f", "line 1", "correct", "2", "0 or 1")
    error = pickle.loads(pickle.dumps(WrongRowsError(1, (wrong,))))
    assert (
        str(error) == "1 wrong row, nothing imported; f, line 1: correct is 2, not 0 or 1"
    )
