"""The forward pass against a plain one, written with loops from the same files."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from planner.engines.kv_cache import Block
from planner.engines.llama import Llama
from planner.engines.tokenizer import CharacterTokenizer
from planner.models.errors import InputError


def plain_logits(folder, ids, head="lm_head.weight"):
    """Logits (T, outputs) of one sequence, in float64, one head and position at a time."""
    c = json.loads((folder / "config.json").read_text())
    w = {
        k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()
    }
    heads, kv_heads, dim = (
        c["num_attention_heads"],
        c["num_key_value_heads"],
        c["hidden_size"] // c["num_attention_heads"],
    )

    def norm(x, gain):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c["rms_norm_eps"]) * gain

    def rotate(x, position):
        angle = position * c["rope_theta"] ** -(np.arange(0, dim, 2) / dim)
        a, b = x[: dim // 2], x[dim // 2 :]
        return np.concatenate(
            [
                a * np.cos(angle) - b * np.sin(angle),
                b * np.cos(angle) + a * np.sin(angle),
            ]
        )

    x = w["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        h = norm(x, w[p + "input_layernorm.weight"])
        q, k, v = (h @ w[f"{p}self_attn.{n}_proj.weight"].T for n in "qkv")
        mixed = np.zeros((len(ids), heads * dim))
        for head_index in range(heads):
            mine = slice(head_index * dim, (head_index + 1) * dim)
            shared = head_index // (heads // kv_heads)
            its = slice(shared * dim, (shared + 1) * dim)
            keys = [rotate(k[t, its], t) for t in range(len(ids))]
            for t in range(len(ids)):
                query = rotate(q[t, mine], t)
                scores = np.array([query @ keys[s] for s in range(t + 1)]) / np.sqrt(dim)
                share = np.exp(scores - scores.max())
                mixed[t, mine] = share / share.sum() @ v[: t + 1, its]
        x = x + mixed @ w[p + "self_attn.o_proj.weight"].T
        h = norm(x, w[p + "post_attention_layernorm.weight"])
        gate, up = (h @ w[f"{p}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"]) @ w[head].T


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_forward_equals_the_plain_one(tiny_model, rng, kv_heads):
    folder = tiny_model(kv_heads=kv_heads, rope_theta=500.0)
    llama = Llama.load(folder)
    ids = rng.integers(32, size=(3, 17))
    logits = llama.hidden(ids) @ llama.head
    for row in range(3):
        np.testing.assert_allclose(logits[row], plain_logits(folder, ids[row]), atol=2e-5)


def test_tied_and_score_heads(tiny_model, rng):
    ids = rng.integers(32, size=(1, 9))
    tied = tiny_model(tied=True)
    llama = Llama.load(tied)
    plain = plain_logits(tied, ids[0], head="model.embed_tokens.weight")
    np.testing.assert_allclose((llama.hidden(ids) @ llama.head)[0], plain, atol=1e-4)
    verifier = tiny_model(verifier=True)
    score, _ = Llama.load(verifier, head="score").prefill(ids, np.array([9]))
    plain = plain_logits(verifier, ids[0], head="score.weight")
    np.testing.assert_allclose(score[0], plain[-1], atol=2e-5)


def test_prefill_reads_each_row_at_its_own_end(tiny_model, rng, monkeypatch):
    llama = Llama.load(tiny_model())
    monkeypatch.setattr("planner.engines.llama._TOKENS_MAX", 25)  # two rows a call
    ids, lengths = rng.integers(32, size=(5, 12)), np.array([12, 1, 7, 11, 3])
    logits, cache = llama.prefill(ids, lengths)
    whole = llama.hidden(ids) @ llama.head
    np.testing.assert_allclose(logits, whole[np.arange(5), lengths - 1], atol=1e-5)
    alone, its_cache = llama.prefill(ids[2:3, :7], lengths[2:3])
    np.testing.assert_allclose(logits[2], alone[0], atol=1e-5)
    np.testing.assert_allclose(cache[:, :, 2, :, :7], its_cache[:, :, 0], atol=1e-5)


class Decoding:
    """Rows of known tokens fed through blocks, checked at every step."""

    def __init__(self, llama, ids):
        self.llama, self.ids = llama, ids
        self.at = np.zeros(len(ids), np.int64)
        self.whole = llama.hidden(ids) @ llama.head
        _, self.cache = llama.prefill(ids, np.full(len(ids), ids.shape[1]))

    def prompt(self, row, length):
        self.at[row] = length
        return self.cache[:, :, row, :, :length]

    def check(self, block, steps):
        for _ in range(steps):
            rows = block.slots
            logits = self.llama.decode(block, self.ids[rows, self.at[rows]])
            np.testing.assert_allclose(logits, self.whole[rows, self.at[rows]], atol=2e-5)
            self.at[rows] += 1


def test_cached_decode_equals_recomputation(tiny_model, rng):
    run = Decoding(Llama.load(tiny_model()), rng.integers(32, size=(5, 60)))
    prompts = [run.prompt(row, length) for row, length in enumerate([3, 9, 1, 9, 5])]
    block = Block.of_prompts(np.arange(5), prompts)
    run.check(block, 5)
    block.remove(1)  # the longest: its row is taken by another, the mask changes
    block.remove(0)
    run.check(block, 30)  # beyond the first allocation
    block.remove(2)
    run.check(block, 5)
    assert sorted(block.slots) == [3, 4]


def test_shared_prompt_equals_recomputation(tiny_model, rng):
    ids = rng.integers(32, size=(6, 60))
    ids[:, :8] = ids[0, :8]
    run = Decoding(Llama.load(tiny_model()), ids)
    prompt = run.prompt(slice(None), 8)[:, :, 0]
    block = Block.of_one_prompt(np.array([0, 1, 2, 5]), prompt)
    run.check(block, 3)
    block.remove(0)
    other = Block.of_prompts(np.array([3, 4]), [run.prompt(3, 2), run.prompt(4, 20)])
    run.check(other, 1)
    both = Block.merged([block, other])
    run.check(both, 30)
    assert sorted(both.slots) == [1, 2, 3, 4, 5]


def test_memory_follows_the_rows(tiny_model, rng):
    run = Decoding(Llama.load(tiny_model()), rng.integers(32, size=(16, 20)))
    block = Block.of_prompts(np.arange(16), [run.prompt(row, 4) for row in range(16)])
    for _ in range(13):
        block.remove(0)
    assert block.kv.shape[2] <= 2 * block.rows
    run.check(block, 3)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "rope_scaling: 'llama3'",
        ),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: 'yarn'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"num_key_value_heads": 3}, "divide"),
        ({"vocab_size": "many"}, "right kind"),
        ({"num_hidden_layers": 3}, "model.layers.2"),
        ({"intermediate_size": 100}, "config.json says"),
    ],
)
def test_refuses_what_it_cannot_run(tiny_model, config, said):
    with pytest.raises(InputError, match=said):
        Llama.load(tiny_model(**config))


def test_rope_parameters_are_read(tiny_model):
    folder = tiny_model(rope_theta=None, rope_parameters={"rope_theta": 77.0})
    assert Llama.load(folder).config.rope_theta == 77.0


def test_damaged_and_missing_files_are_named(tiny_model):
    folder = tiny_model()
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not safetensors at all"):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
            Llama.load(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        Llama.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        Llama.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        Llama.load(folder)


def test_weights_that_are_not_finite_are_refused(tiny_model):
    path = tiny_model() / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"][3, 4] = np.nan
    save_file(tensors, path)
    with pytest.raises(
        InputError, match=r"lm_head\.weight holds values that are not finite"
    ):
        Llama.load(path.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"type": "BPE", "vocab": {}}}, "BPE"),
        ({"normalizer": {"type": "NFC"}}, "normalises"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "single characters"),
        ({"model": {"type": "WordLevel", "vocab": {"ab": 1}}}, "'ab'"),
        ({"post_processor": {"type": "ByteLevel"}}, "ByteLevel"),
        ({"added_tokens": [{}]}, "laid out"),
    ],
)
def test_other_tokenizers_are_refused_with_the_way_out(tiny_model, change, said):
    path = tiny_model() / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=f"{said}.*engine: transformers"):
        CharacterTokenizer.read(path)


@pytest.mark.transformers
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_logits_and_tokens_equal_those_of_transformers(tiny_model, kv_heads):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tiny_model(hidden=64, kv_heads=kv_heads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    llama = Llama.load(folder)
    text = "R3,7,12>24:12-3=9,9+7=16|"
    ids = CharacterTokenizer.read(folder / "tokenizer.json").encode(text)
    assert ids == tokenizer(text).input_ids
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits.numpy()
    ours = llama.hidden(np.array([ids])) @ llama.head
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.transformers
def test_scores_equal_those_of_transformers(tiny_model):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tiny_model(hidden=64, verifier=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32
    )
    ids = np.array([[1, 5, 6, 7, 13, 8, 2]])
    ours, _ = Llama.load(folder, head="score").prefill(ids, np.array([7]))
    with torch.no_grad():
        np.testing.assert_allclose(ours, model(torch.tensor(ids)).logits.numpy(), atol=1e-4)
