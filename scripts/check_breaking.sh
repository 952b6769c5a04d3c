#!/usr/bin/env bash
# Compares the protos with those of the main branch: a change that breaks callers fails.
set -euo pipefail
cd "$(dirname "$0")/.."
base=$(git rev-parse --verify --quiet origin/main || git rev-parse --verify --quiet main || true)
if [ -z "$base" ] || ! git cat-file -e "$base:protos" 2>/dev/null; then
    echo "no protos on the main branch yet: nothing to compare with"
    exit 0
fi
.venv/bin/buf breaking --against ".git#ref=$base"
