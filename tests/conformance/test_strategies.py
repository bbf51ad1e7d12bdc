"""Every strategy keeps the contract of planner/strategies/base.py, and picks as it says."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.models.errors import InputError
from planner.strategies import Outcome, State, make_strategy, strategy_names

outcomes = st.builds(
    Outcome,
    answer=st.sampled_from(["", "1", "2", "3"]),
    verified=st.sampled_from([None, False, True]),
    score=st.none() | st.sampled_from([-40.0, -1.0, 0.0, 2.0, 50.0, float("nan")]),
    failed=st.booleans(),
)


@st.composite
def runs(draw):
    """A strategy, the outcome of each draw it may ever make, and an order of telling."""
    name = draw(st.sampled_from(strategy_names()))
    n = 1 if name == "single" else draw(st.integers(1, 9))
    strategy = make_strategy(name, n, confidence=draw(st.sampled_from([0.8, 0.95, 1.0])))
    return strategy, draw(st.lists(outcomes, min_size=n, max_size=n)), draw(
        st.permutations(range(n))
    )  # fmt: skip


def tell_all(strategy, told, order):
    state = State().with_asked(strategy.n)
    for draw in order:
        state = strategy.tell(state, draw, told[draw])
    return state


@settings(deadline=None)
@given(runs(), st.lists(st.integers(-1, 4), min_size=1, max_size=12))
def test_asks_each_draw_once_and_never_more_than_n_or_slots(run, slots):
    strategy = run[0]
    state, seen = State(), []
    for limit in slots:  # no tell in between
        state, draws = strategy.ask(state, limit)
        assert len(draws) <= max(limit, 0)
        seen += draws
    assert seen == list(range(len(seen)))
    assert len(seen) == min(strategy.n, sum(max(limit, 0) for limit in slots))


@settings(deadline=None)
@given(runs())
def test_tells_may_come_shuffled_and_repeated(run):
    strategy, told, order = run
    state = tell_all(strategy, told, range(strategy.n))
    shuffled = tell_all(strategy, told, [*order, *order])
    assert repr(shuffled) == repr(state)  # NaN scores differ from themselves
    assert strategy.choose(shuffled) == strategy.choose(state)
    assert strategy.tell(state, 0, Outcome(answer="other", verified=True)) is not None
    first = strategy.tell(state, 0, Outcome(answer="other", verified=True))
    assert repr(first) == repr(state)


@settings(deadline=None)
@given(runs(), st.integers(0, 9))
def test_a_saved_state_resumes(run, told_before):
    strategy, told, order = run
    state = State().with_asked(strategy.n)
    for draw in order[:told_before]:
        state = strategy.tell(state, draw, told[draw])
    saved = json.loads(json.dumps(asdict(state)))
    resumed = State(
        saved["asked"], tuple((draw, Outcome(**fields)) for draw, fields in saved["told"])
    )
    for draw in order[told_before:]:
        state = strategy.tell(state, draw, told[draw])
        resumed = strategy.tell(resumed, draw, told[draw])
    assert strategy.choose(resumed) == strategy.choose(state)
    assert strategy.done(resumed) == strategy.done(state)


@settings(deadline=None)
@given(runs())
def test_ends_and_asks_nothing_then(run):
    strategy, told, _ = run
    state = State()
    for _ in range(strategy.n):
        if strategy.done(state):
            break
        state, draws = strategy.ask(state, 1)
        assert len(draws) == 1  # not done, nothing runs: there is something to start
        state = strategy.tell(state, draws[0], told[draws[0]])
    assert strategy.done(state)
    assert not strategy.ask(state, 100)[1]


@settings(deadline=None)
@given(runs())
def test_chooses_an_answer_that_did_not_fail_or_none(run):
    strategy, told, order = run
    state = tell_all(strategy, told, order)
    choice = strategy.choose(state)
    usable = [out for out in told if not out.failed and (out.answer or out.verified)]
    if choice is None:
        assert not [out for out in usable if out.answer]
    else:
        chosen = told[choice.draw]
        assert not chosen.failed
        assert 0 <= choice.confidence <= 1
        assert (choice.confidence == 1) == (chosen.verified is True)


@settings(deadline=None)
@given(runs())
def test_failed_draws_do_not_matter(run):
    strategy, told, order = run
    failed = [replace(out, failed=True) for out in told]
    assert strategy.choose(tell_all(strategy, failed, order)) is None


@settings(deadline=None)
@given(runs())
def test_state_is_not_changed_in_place(run):
    strategy, told, _ = run
    state, _ = strategy.ask(State(), 1)
    before = repr(state)
    strategy.tell(state, 0, told[0])
    strategy.ask(state, 5)
    assert repr(state) == before


@pytest.mark.parametrize("name", strategy_names())
def test_refuses_a_draw_never_asked_for(name):
    strategy = make_strategy(name, 1)
    with pytest.raises(InputError, match="never asked"):
        strategy.tell(State(), 0, Outcome(answer="1"))


@pytest.mark.parametrize("name", strategy_names())
def test_has_its_name_and_n(name):
    assert make_strategy(name, 1).name == name
    assert make_strategy(name, 1).n == 1
    with pytest.raises(InputError):
        make_strategy(name, 0)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"single, best_of_n, best_of_n_scored, self_cons"):
        make_strategy("beam", 4)


def test_settings_that_cannot_be_used():
    with pytest.raises(InputError, match="one draw"):
        make_strategy("single", 2)
    with pytest.raises(InputError, match="confidence"):
        make_strategy("self_consistency", 2, confidence=0.5)


def choose(strategy, *told):
    return strategy.choose(tell_all(strategy, told, range(len(told))))


def test_best_of_n_stops_at_the_first_verified_draw():
    strategy = make_strategy("best_of_n", 8)
    state, _ = strategy.ask(State(), 3)
    state = strategy.tell(state, 0, Outcome(answer="a", verified=False))
    assert not strategy.done(state)
    state = strategy.tell(state, 2, Outcome(answer="c", verified=True))
    assert strategy.done(state)
    choice = strategy.choose(state)
    assert choice is not None
    assert (choice.draw, choice.confidence) == (2, 1.0)


def test_best_of_n_without_a_verified_draw_gives_the_first_answer_unsurely():
    strategy = make_strategy("best_of_n", 3)
    choice = choose(
        strategy,
        Outcome(answer=""),
        Outcome(answer="b"),
        Outcome(answer="c", verified=False),
    )
    assert choice is not None
    assert choice.draw == 1
    assert choice.confidence < 0.5


def test_best_of_n_scored_takes_the_highest_score_and_the_earliest_of_equals():
    strategy = make_strategy("best_of_n_scored", 4)
    choice = choose(
        strategy, Outcome(answer="a", score=0.0), Outcome(answer="b", score=3.0),
        Outcome(answer="c", score=3.0), Outcome(answer="d"),
    )  # fmt: skip
    assert choice is not None
    assert choice.draw == 1
    assert choice.confidence == pytest.approx(1 / (1 + 2.718281828459045**-3))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "1", "2", "3"]), min_size=1, max_size=12))
def test_votes_are_counted_as_by_hand(answers):
    strategy = make_strategy("self_consistency", len(answers))
    choice = choose(strategy, *(Outcome(answer=answer) for answer in answers))
    voted = [answer for answer in answers if answer]
    if not voted:
        assert choice is None
        return
    most = max(map(voted.count, voted))
    winner = next(answer for answer in voted if voted.count(answer) == most)
    assert choice is not None
    assert choice.draw == answers.index(winner)


def votes(n, *answers, confidence=1.0):
    strategy = make_strategy("self_consistency", n, confidence=confidence)
    state = State().with_asked(len(answers))
    for draw, answer in enumerate(answers):
        state = strategy.tell(state, draw, Outcome(answer=answer))
    return strategy.done(state)


def test_votes_stop_when_no_draw_left_can_overturn_them():
    assert votes(5, "1", "1", "1")  # 3 ahead of 2 left
    assert not votes(6, "1", "1", "1")  # 3 left could tie
    assert not votes(5, "1", "2", "1")


def test_votes_stop_when_the_leader_is_sure_enough():
    # four in a row: 1 - I_1/2(5, 1) = 1 - 2**-5 = 0.969; three: 0.9375
    assert votes(64, "1", "1", "1", "1", confidence=0.95)
    assert not votes(64, "1", "1", "1", confidence=0.95)
    assert not votes(64, "", "", "", "", "", confidence=0.95)  # empty answers do not vote


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("123"), min_size=1, max_size=20))
def test_a_certain_stop_never_changes_the_winner(answers):
    strategy = make_strategy("self_consistency", len(answers), confidence=1.0)
    full = choose(strategy, *(Outcome(answer=answer) for answer in answers))
    state = State()
    while not strategy.done(state):
        state, (draw,) = strategy.ask(state, 1)
        state = strategy.tell(state, draw, Outcome(answer=answers[draw]))
    early = strategy.choose(state)
    assert early is not None
    assert full is not None
    assert answers[early.draw] == answers[full.draw]
