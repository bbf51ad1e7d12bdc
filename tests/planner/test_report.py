"""The report: offline, complete, safe against hostile names, readable numbers."""

import html.parser
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from planner.models.errors import StoreError
from planner.models.records import Sample
from planner.report import write_report
from planner.report_laws import k_grid, measured_coverage
from planner.report_page import amount, badge, table
from planner.report_style import Palette, wilson

_HERE = Path(__file__).parent
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def _synthetic():
    spec = importlib.util.spec_from_file_location("synthetic", _HERE / "synthetic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Reader(html.parser.HTMLParser):
    """Elements, the text outside scripts, and ids of a page."""

    def __init__(self):
        super().__init__()
        self.elements, self.text, self.ids, self.figures = [], [], set(), []
        self._in = None

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self.ids.add(attributes.get("id"))
        if tag in ("script", "style"):
            self._in = attributes.get("type", tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._in = None

    def handle_data(self, data):
        if self._in is None:
            self.text.append(data)
        elif self._in == "application/json":
            self.figures.append(json.loads(data))


def _read(path):
    reader = _Reader()
    reader.feed(path.read_text())
    return reader


@pytest.fixture
def world(rng):
    return _synthetic().make(rng)


def test_page_holds_every_section_and_no_address(world, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, **vars(world))
    assert path.stat().st_size < 6e6
    page = _read(path)
    assert {
        "headline",
        "frontier",
        "allocation",
        "promised",
        "coverage",
        "latency",
        "holdout",
        "sources",
        "reach",
    } <= page.ids
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base"), tag
        for name in ("src", "href", "action", "srcset"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    policy = [
        a for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy[0]["content"]
    assert len(page.figures) == 14


def test_headline_states_promise_and_achievement(world, tmp_path):
    write_report(tmp_path / "r.html", **vars(world))
    text = " ".join(_read(tmp_path / "r.html").text)
    own = world.outcome.arms["planner"]
    assert f"{100 * own.accuracy:.1f}\u202f% right" in text
    assert f"{100 * world.plan.promised_accuracy.mean:.1f}\u202f% of them right" in text
    assert "97.0\u202f% of the budget" in text


@pytest.mark.parametrize(
    ("gain_se", "words"), [(0.001, "more right than"), (0.9, "cannot be told apart")]
)
def test_a_gain_within_its_error_is_not_claimed(world, tmp_path, gain_se, words):
    arms = dict(world.outcome.arms)
    arms = {
        "planner": arms["planner"],
        "single_best_model": arms["single_best_model"].model_copy(
            update={"gain_se": gain_se}
        ),
    }
    world.outcome = world.outcome.model_copy(update={"arms": arms})
    write_report(tmp_path / "r.html", **vars(world))
    assert words in " ".join(_read(tmp_path / "r.html").text)


def test_a_baseline_that_left_budget_unspent_is_said_so(world, tmp_path):
    arms = dict(world.outcome.arms)
    spent = {"eflop": 0.28 * world.outcome.budget_total}
    arms["single_best_model"] = arms["single_best_model"].model_copy(
        update={"spent": spent}
    )
    world.outcome = world.outcome.model_copy(update={"arms": arms})
    write_report(tmp_path / "r.html", **vars(world))
    text = " ".join(_read(tmp_path / "r.html").text)
    assert text.count("it spent only 28\u202f% of the budget") == 2


def test_a_worse_planner_is_reported_as_worse(world, tmp_path):
    arms = dict(world.outcome.arms)
    arms["planner"], arms["single_best_model"] = arms["single_best_model"], arms["planner"]
    world.outcome = world.outcome.model_copy(update={"arms": arms})
    write_report(tmp_path / "r.html", **vars(world))
    text = " ".join(_read(tmp_path / "r.html").text)
    assert "fewer right than the baseline \u201cbest single model" in text
    assert "below that interval" in text


def test_hostile_names_stay_text(rng, tmp_path):
    synthetic = _synthetic()
    world = synthetic.make(
        rng, models=(HOSTILE, "b"), tasks=("chain", HOSTILE), n_problems=4
    )
    write_report(tmp_path / "r.html", **vars(world))
    page = _read(tmp_path / "r.html")
    assert not [t for t, _ in page.elements if t == "img"]
    # plots' data, plotly and our script: nothing more
    plain = [a for t, a in page.elements if t == "script" and "type" not in a]
    assert len(plain) == 2
    assert HOSTILE in " ".join(page.text)
    # plotly reads markup in its texts, so that names are escaped there too
    assert not re.search(r"<(img|script)", json.dumps(page.figures))


def test_without_plan_outcome_or_timings_the_rest_is_written(world, tmp_path):
    write_report(
        tmp_path / "r.html",
        laws=world.laws,
        plan=None,
        outcome=None,
        samples=world.samples,
        timings=world.timings.iloc[:0],
        machines=world.machines.iloc[:0],
    )
    page = _read(tmp_path / "r.html")
    assert not {"frontier", "allocation", "promised", "reach"} & page.ids
    assert "nothing is planned yet" in " ".join(page.text)


def test_an_empty_store_and_bare_laws_are_written(world, tmp_path):
    laws = world.laws.model_copy(
        update={
            "holdout": (),
            "models": tuple(
                m.model_copy(
                    update={
                        "latency": None,
                        "architecture": None,
                        "usd_per_input_token": None,
                    }
                )
                for m in world.laws.models
            ),
        }
    )
    samples = pd.DataFrame(columns=list(Sample.__dataclass_fields__))
    write_report(
        tmp_path / "r.html",
        laws=laws,
        plan=world.plan,
        outcome=None,
        samples=samples,
        timings=world.timings.iloc[:0],
        machines=world.machines,
    )
    text = " ".join(_read(tmp_path / "r.html").text)
    assert "not priced" in text
    assert "No samples were held out" in text


def test_not_graded_outcome_claims_no_accuracy(world, tmp_path):
    arm = world.outcome.arms["planner"].model_copy(
        update={"accuracy": None, "by_group": ()}
    )
    world.outcome = world.outcome.model_copy(update={"arms": {"planner": arm}})
    write_report(tmp_path / "r.html", **vars(world))
    text = " ".join(_read(tmp_path / "r.html").text)
    assert "not graded" in text
    assert "achieved accuracy" not in text


def test_overspending_is_said(world, tmp_path):
    spent = {"eflop": 1.2 * world.plan.budget_total}
    arms = {"planner": world.outcome.arms["planner"].model_copy(update={"spent": spent})}
    world.outcome = world.outcome.model_copy(update={"arms": arms})
    write_report(tmp_path / "r.html", **vars(world))
    assert "more than it was given" in " ".join(_read(tmp_path / "r.html").text)


def test_unwritable_folder_is_one_error(world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(tmp_path / "file" / "r.html", **vars(world))


def test_measured_coverage_recovers_the_truth(rng):
    """E pass@k of Beta(a, b) problems is 1 - B(a, b + k) / B(a, b): here k / (k + 1)."""
    n_problems, n = 4000, 16
    p = rng.beta(1, 1, n_problems)
    rows = pd.DataFrame(
        {
            "problem_id": np.repeat(np.arange(n_problems), n),
            "correct": (rng.random((n_problems, n)) < p[:, None]).ravel(),
        }
    )
    k, mean, error = measured_coverage(rows)
    truth = np.array(k) / (np.array(k) + 1)
    assert k == [1, 2, 3, 4, 6, 8, 12, 16]
    assert (np.abs(mean - truth) < 4 * error).all()


def test_k_stops_where_problems_lack_draws():
    rows = pd.DataFrame({"problem_id": ["a"] * 2 + ["b"] * 64, "correct": [True] * 66})
    assert measured_coverage(rows)[0] == [1, 2]


@pytest.mark.parametrize(
    ("largest", "grid"), [(1, [1]), (5, [1, 2, 3, 4, 5]), (8, [1, 2, 3, 4, 6, 8])]
)
def test_k_grid(largest, grid):
    assert k_grid(largest) == grid


def test_wilson_matches_published_values():
    low, high = wilson(0, 10)  # z = 1.645: z^2 / (n + z^2)
    assert (low, high) == (0.0, pytest.approx(2.7055 / 12.7055, rel=1e-3))
    low, high = wilson(5, 10)
    assert low + high == pytest.approx(1)
    assert low == pytest.approx(0.2693, abs=1e-3)


def test_a_model_keeps_its_colour_and_labels_find_it():
    palette = Palette(("a", "a b", "c"))
    assert len({palette.colour(m) for m in palette.models}) == 3
    assert palette.of_label("a b best_of_n n=4") == "a b"
    assert palette.of_label("planner") is None
    many = Palette(tuple(map(str, range(16))))
    assert len({(many.colour(m), many.symbol(m)) for m in many.models}) == 16


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.14e10, "flop", "21.4 GFLOP"),
        (0.0021, "usd", "0.0021 USD"),
        (12_345.0, "usd", "12,345 USD"),
        (2.1e7, "eflop", "21 M eFLOP"),
        (950.0, "tokens", "950 tokens"),
        (0.0, "bytes", "0 B"),
    ],
)
def test_amounts_read_well(value, unit, text):
    assert amount(value, unit) == text


def test_table_escapes_text_and_keeps_markup():
    text = table(("<a>",), [("<b>",), (badge("measured"),)]).text
    assert "<a>" not in text
    assert "<b>" not in text
    assert '<span class="badge measured">' in text
