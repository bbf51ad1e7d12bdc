import numpy as np
import pytest

from planner.models.errors import FitError, InputError
from planner.models.published import NOTE, published_laws
from planner.models.published_inference import (
    ResamplingLaw,
    best_draft_length,
    draft_operations,
    draft_params,
    draft_speedup,
    tokens_per_pass,
    verification_break_even,
    verification_cost,
    verification_split,
)
from planner.models.published_retrieval import RetrievalLaw
from planner.models.published_training import (
    CHINCHILLA,
    CHINCHILLA_REPLICATED,
    PARSCALE_PILE,
    PARSCALE_STACK,
    PRECISION,
)

# ParScale's loss tables (arXiv:2505.10475, the authors' parametric_fit.py): rows P = 1, 2,
# 4, 8; columns six sizes, non-embedding parameters of P = 1 and of P = 8
SIZES = np.array(
    [
        [535813376, 693753856, 1088376320, 1571472384, 2774773760, 4353203200],
        [538195842, 696738818, 1092762882, 1577522690, 2784937986, 4368529922],
        [540577412, 699722756, 1097148164, 1583571460, 2795100164, 4383854084],
        [545340552, 705690632, 1105918728, 1595669000, 2815424520, 4414502408],
    ]
)
STREAMS = np.array([[1], [2], [4], [8]])
STACK = np.array(
    [
        [1.1722, 1.1496, 1.1131, 1.0817, 1.0451, 1.0213],
        [1.1507, 1.1262, 1.0940, 1.0623, 1.0244, 1.0025],
        [1.1354, 1.1124, 1.0808, 1.0490, 1.0126, 0.9906],
        [1.1231, 1.0997, 1.0688, 1.0383, 1.0016, 0.9794],
    ]
)
PILE = np.array(
    [
        [2.1113, 2.0671, 2.0027, 1.9539, 1.8876, 1.8451],
        [2.0772, 2.0363, 1.9730, 1.9266, 1.8610, 1.8137],
        [2.0544, 2.0128, 1.9509, 1.9040, 1.8394, 1.7938],
        [2.0364, 1.9933, 1.9318, 1.8856, 1.8218, 1.7772],
    ]
)


@pytest.mark.parametrize(
    ("law", "table", "printed_r2"),
    [(PARSCALE_STACK, STACK, 0.9978), (PARSCALE_PILE, PILE, 0.9987)],
)
def test_parscale_gives_its_loss_tables_as_well_as_its_authors_fit(law, table, printed_r2):
    said = law.loss(SIZES, STREAMS)
    r2 = 1 - ((said.value - table) ** 2).sum() / ((table - table.mean()) ** 2).sum()
    assert r2 == pytest.approx(printed_r2, abs=5e-5)
    assert said.in_domain.all()
    assert said.unit == "nats/token"


def test_streams_count_as_parameters():
    same = PARSCALE_PILE.equivalent_params(1e9, 8).value
    assert PARSCALE_PILE.loss(same, 1).value == pytest.approx(
        float(PARSCALE_PILE.loss(1e9, 8).value)
    )
    with pytest.raises(InputError, match="1 stream"):
        PARSCALE_PILE.loss(1e9, 0.5)


def test_lifetime_optimum_is_that_of_the_papers_code():
    """Printed in the README of the code of arXiv:2401.00448."""
    plan = CHINCHILLA.lifetime_optimum(1.947, 2e12)
    plain = CHINCHILLA.training_optimum(1.947)
    assert plan.params.value == pytest.approx(2.418e10, rel=5e-4)
    assert plan.tokens.value == pytest.approx(2.657e12, rel=5e-4)
    assert plan.params.value / plain.params.value == pytest.approx(0.7096, abs=5e-5)
    assert plan.tokens.value / plain.tokens.value == pytest.approx(1.4677, abs=1e-4)
    plain_total = plain.total_flop + 2 * plain.params.value * 2e12
    assert plan.total_flop / plain_total == pytest.approx(0.9522, abs=5e-5)
    assert not plan.params.in_domain  # 24 B parameters: larger than what was trained


def test_lifetime_optimum_of_a_13b_model_is_7b():
    """Figure 1 of arXiv:2401.00448: 2 T tokens served, 1.7e22 FLOP or 17 % saved."""
    chinchilla_tokens = 0.283 * 410.7 / (0.336 * 406.4 * 13e9**-0.336)
    loss = CHINCHILLA.loss(13e9, chinchilla_tokens ** (1 / 0.283)).value
    plan, plain = CHINCHILLA.lifetime_optimum(loss, 2e12), CHINCHILLA.training_optimum(loss)
    assert plain.params.value == pytest.approx(13e9)
    assert plan.params.value == pytest.approx(7e9, rel=0.01)
    before = plain.total_flop + 2 * 13e9 * 2e12
    assert before - plan.total_flop == pytest.approx(1.7e22, rel=0.01)
    assert 1 - plan.total_flop / before == pytest.approx(0.17, abs=0.005)


def test_lifetime_optimum_has_no_better_neighbour():
    demands = np.array([0.0, 1e9, 1e12, 1e15])
    plan = CHINCHILLA_REPLICATED.lifetime_optimum(2.2, demands)
    for factor in (0.99, 1.01):
        n = plan.params.value * factor
        d = CHINCHILLA_REPLICATED.tokens_for(2.2, n).value
        assert (6 * n * d + 2 * n * demands > plan.total_flop).all()
    reached = CHINCHILLA_REPLICATED.loss(plan.params.value, plan.tokens.value).value
    np.testing.assert_allclose(reached, 2.2)
    assert (np.diff(plan.params.value) < 0).all()


def test_replicated_chinchilla_wants_about_twenty_tokens_a_parameter():
    """Besiroglu et al., arXiv:2404.10102: about 20 at Chinchilla's compute, 5.8e23."""
    n = np.geomspace(1e10, 2e11, 4001)
    loss = CHINCHILLA_REPLICATED.loss(n, 5.76e23 / (6 * n)).value
    best = n[loss.argmin()]
    assert 5.76e23 / (6 * best) / best == pytest.approx(20, rel=0.35)


def test_losses_that_cannot_be_reached_are_refused():
    with pytest.raises(InputError, match="floor"):
        CHINCHILLA.lifetime_optimum(1.69, 1e12)
    with pytest.raises(InputError, match="do not reach"):
        CHINCHILLA.tokens_for(2.0, 1e8)
    with pytest.raises(InputError, match="above 0"):
        CHINCHILLA.loss(0, 1e9)
    with pytest.raises(InputError, match="finite"):
        CHINCHILLA.loss(np.nan, 1e9)
    with pytest.raises(InputError, match="demand"):
        CHINCHILLA.lifetime_optimum(2.0, -1.0)


def test_precision_law_finds_seven_to_eight_bits_and_a_fourfold_model_at_four():
    """Section 4.3.2 of arXiv:2411.04330; as alpha = beta, the largest N_eff / P is best."""
    bits = np.linspace(4, 16, 1201)
    kept = PRECISION.effective_params(
        1e8, weight_bits=bits, activation_bits=bits, kv_bits=bits
    )
    assert 7 - 0.01 <= bits[(kept.value / bits).argmax()] <= 8
    assert 1e8 / kept.value[0] > 4
    assert kept.in_domain.all()
    # appendix M: the KV cache is insensitive at high bits, sensitive around 4 to 5
    cache = PRECISION.effective_params(1e8, kv_bits=[4, 5, 8, 16]).value
    cache = cache / cache[-1]
    assert cache[0] < 0.85
    assert cache[2] > 0.99


def test_bits_at_which_training_diverges_are_refused():
    with pytest.raises(InputError, match="no parameters left"):
        PRECISION.effective_params(1e8, activation_bits=3)


def test_rounding_hurts_more_after_more_training():
    """Finding 1 of arXiv:2411.04330; exponents of its table 2."""
    added = PRECISION.rounding_loss(1e8, [2e9, 4e9], 4).value
    assert added[1] / added[0] == pytest.approx(2**0.5068)
    size = PRECISION.rounding_loss([1e8, 2e8], 1e10, 4).value
    assert size[1] / size[0] == pytest.approx(2**-0.3439)
    bits = PRECISION.rounding_loss(30e6, 26e9, [3, 4, 8])
    assert bits.value[0] / bits.value[1] == pytest.approx(np.exp(1 / 0.5907))
    assert bits.value[2] < 1e-3 < bits.value[0]
    assert not PRECISION.rounding_loss(7e9, 2e12, 4).in_domain


def test_speculative_decoding_gives_its_table():
    """Table 1 of arXiv:2211.17192 (operations, speed at c = 0), and section 3.6."""
    a = [0.6, 0.7, 0.8, 0.8, 0.9, 0.9]
    g = [2, 3, 2, 5, 2, 10]
    speed, work = draft_speedup(a, g, 0), draft_operations(a, g)
    np.testing.assert_allclose(
        speed.value, [1.96, 2.53, 2.44, 3.69, 2.71, 6.86], atol=0.005
    )
    np.testing.assert_allclose(work.value, [1.53, 1.58, 1.23, 1.63, 1.11, 1.60], atol=0.005)
    assert draft_speedup(0.2, 3, 0).value == pytest.approx(1.25, abs=0.005)
    # corollary 3.9: one drafted token gives (1 + a) / (1 + c)
    assert draft_speedup(0.8, 1, 0.1).value == pytest.approx(1.8 / 1.1)


def test_draft_length_is_the_best_and_drafting_may_not_help():
    a, c = 0.8, 0.05
    best = float(best_draft_length(a, c).value)
    speeds = draft_speedup(a, np.arange(65), c).value
    assert best == speeds.argmax()
    assert best_draft_length(0.1, 0.3).value == 0
    assert tokens_per_pass(1.0, 4).value == 5
    for bad in ((1.1, 2), (-0.1, 2), (0.5, 1.5), (0.5, -1)):
        with pytest.raises(InputError):
            tokens_per_pass(*bad)


def test_draft_of_a_200th_is_the_order_of_the_printed_one():
    """arXiv:2603.11053: target / 200; 189 M for a 70 B target."""
    said = draft_params(70e9)
    assert said.value == 350e6
    assert 0.5 < 189e6 / said.value < 2
    assert not draft_params(1e12).in_domain


def test_solutions_grow_faster_than_verifications():
    """arXiv:2504.01005: S ~ C^0.57, V ~ C^0.39; cost S (1 + lambda V)."""
    split = verification_split(8, 4, 16)
    assert split.solutions.value == pytest.approx(8 * 16**0.57)
    assert split.verifications.value == pytest.approx(4 * 16**0.39)
    growth = np.log(split.solutions.value / 8) / np.log(split.verifications.value / 4)
    assert 1.4 < growth < 2  # "1.5-2x"
    assert verification_cost(8, 4, 2.0).value == 72
    assert verification_cost(8, 0, 1.0).value == 8
    matches, gains = verification_break_even(32)
    assert (matches.value, gains.value) == (256, 4096)
    with pytest.raises(InputError):
        verification_cost(0, 1, 1)
    with pytest.raises(InputError):
        verification_split(4, 0, 2)


def test_imperfect_verifiers_want_few_draws():
    """arXiv:2411.17501: at costs of 0.7, 1 and 2 the best number of draws is below 10."""
    law = ResamplingLaw()
    best = law.best_draws([-0.7, -1.0, -2.0])
    assert (best.value >= 1).all()
    assert (best.value < 10).all()
    assert (np.diff(best.value) <= 0).all()
    # one draw: sum of p (r - cost (1 - s)(1 - r))
    one = 0.58 * (0.87 - 0.25 * 0.13) + 0.42 * (0.13 - 0.25 * 0.87)
    assert law.value(1, -1.0).value == pytest.approx(one)
    perfect = ResamplingLaw(soundness=1.0)
    assert perfect.value(10_000, -5.0).value == pytest.approx(1)
    with pytest.raises(InputError, match="shares of the kinds"):
        ResamplingLaw(priors=(0.5, 0.4))


def retrieval_rows(rng, noise):
    truth = np.array([0.3, 0.2, 0.25, 0.4, -0.1, -1.0])
    counts = rng.integers(1, 50, size=(60, 3))
    gains = rng.choice([[0.1, 0.05], [0.4, 0.02], [0.25, 0.2]], size=60)
    logs = np.log(counts)
    design = np.column_stack([logs, gains * logs[:, :2], np.ones(60)])
    logit = design @ truth + noise * rng.standard_normal(60)
    return counts, gains, 1 / (1 + np.exp(-logit)), truth


def test_retrieval_law_recovers_itself_and_its_interval_holds(rng):
    counts, gains, accuracy, truth = retrieval_rows(rng, 0.0)
    np.testing.assert_allclose(
        RetrievalLaw.fit(counts, gains, accuracy).coefficients, truth, atol=1e-9
    )
    held = 0
    for _ in range(200):
        counts, gains, accuracy, _ = retrieval_rows(rng, 0.3)
        law = RetrievalLaw.fit(counts, gains, accuracy)
        prediction = law.predict([[20, 5, 3]], [[0.25, 0.2]], rng, size=400)
        low, high = prediction.interval()
        logs = np.log([20, 5, 3])
        point = np.array([*logs, 0.25 * logs[0], 0.2 * logs[1], 1.0]) @ truth
        held += int(low[0] <= 1 / (1 + np.exp(-point)) <= high[0])
    assert abs(held / 200 - 0.9) < 3.3 * np.sqrt(0.09 / 200)


def test_retrieval_says_when_it_extrapolates_and_when_rows_do_not_do(rng):
    counts, gains, accuracy, _ = retrieval_rows(rng, 0.1)
    law = RetrievalLaw.fit(counts, gains, accuracy)
    asked = law.predict([[10, 5, 3], [1000, 5, 3]], [[0.1, 0.05]] * 2, rng)
    np.testing.assert_array_equal(asked.extrapolated, [False, True])
    with pytest.raises(FitError, match="do not determine"):
        RetrievalLaw.fit(counts, np.full((60, 2), 0.1), accuracy)
    with pytest.raises(InputError, match="strictly"):
        RetrievalLaw.fit(counts, gains, np.ones(60))
    with pytest.raises(InputError, match="at least 1"):
        RetrievalLaw.fit(counts - 1, gains, accuracy)


def test_catalogue_says_of_every_law_where_it_comes_from():
    laws = published_laws()
    assert len({law.name for law in laws}) == len(laws) >= 10
    for law in laws:
        assert law.source.startswith("arXiv:")
        assert law.note == NOTE
        assert law.domain
        assert law.formula
        assert law.functions
        assert all(p.unit and p.meaning and np.isfinite(p.value) for p in law.parameters)
    assert CHINCHILLA.loss(1e9, 1e10).note == NOTE


def test_catalogue_names_functions_that_exist():
    from planner.models import published_inference, published_retrieval, published_training

    modules = (published_inference, published_retrieval, published_training)
    for law in published_laws():
        for name in law.functions:
            head, *rest = name.split(".")
            owners = [m for m in modules if hasattr(m, head)]
            assert owners, name
            target = getattr(owners[0], head)
            assert callable(getattr(target, rest[0]) if rest else target)
