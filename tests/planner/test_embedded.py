def test_x(tiny_model):
    assert sorted(p.name for p in tiny_model().iterdir()) == sorted(["config.json","model.safetensors","tokenizer.json","tokenizer_config.json"])
