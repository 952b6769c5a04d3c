#!/usr/bin/env bash
# Generates src/headrace/api from protos/. With --check it only compares, and fails on a difference.
#
# The oldest supported toolchain is used on purpose: its code loads on every newer runtime, not the other way round.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.gen-venv
if [ ! -x "$venv/bin/protoc-gen-mypy" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q 'grpcio-tools==1.76.0' 'mypy-protobuf==3.7.0' 'setuptools<81'
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
PATH="$PWD/$venv/bin:$PATH" "$venv/bin/python" -m grpc_tools.protoc -Iprotos -Ithird_party \
    --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
    $(find protos -name '*.proto' | sort)
find "$out/headrace/api" -type d -exec touch {}/__init__.py \;
if [ "${1:-}" = "--check" ]; then
    diff -r --exclude=__pycache__ "$out/headrace/api" src/headrace/api \
        || { echo "src/headrace/api differs from protos/: run 'make protos' and commit" >&2; exit 1; }
else
    rm -rf src/headrace/api
    mkdir -p src/headrace
    cp -r "$out/headrace/api" src/headrace/api
fi
