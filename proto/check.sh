#!/usr/bin/env bash
# Check the protos: lint, no break of the contract, and no drift of src/pemba/v1 from them.
#
# Broken is what buf calls breaking (category FILE) against an earlier commit, the first of these that there is:
# the latest release tag (v*) before HEAD, the main branch where HEAD is not on it, HEAD's parent.  A clone that has
# none of them (shallow, or a first commit) is compared with HEAD itself: what is not committed yet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

baseline() {
  local ref
  git describe --tags --match 'v*' --abbrev=0 HEAD 2>/dev/null && return
  for ref in origin/main main; do
    if git rev-parse --quiet --verify "$ref^{commit}" >/dev/null && ! git merge-base --is-ancestor HEAD "$ref"; then
      git merge-base HEAD "$ref" 2>/dev/null && return
    fi
  done
  git rev-parse --quiet --verify 'HEAD~1^{commit}' || git rev-parse --quiet --verify 'HEAD^{commit}'
}

buf lint
buf format --diff --exit-code

if commit=$(baseline) && git cat-file -e "$commit:proto" 2>/dev/null; then
  git archive "$commit" proto | tar --extract --directory "$scratch"
  buf breaking proto --against "$scratch/proto"
  echo "protos: nothing broken since $(git log -1 --format='%h (%s)' "$commit")"
else
  echo "protos: no earlier commit here has any; nothing to break"
fi

proto/generate.sh "$scratch/generated"
if ! diff --recursive --brief --exclude=__init__.py --exclude=__pycache__ "$scratch/generated/pemba/v1" src/pemba/v1; then
  echo "error: src/pemba/v1 is not what proto/ generates; run proto/generate.sh and commit the result" >&2
  exit 1
fi
