#!/usr/bin/env bash
# Generate src/pemba/v1 from proto/pemba/v1; with an argument: into that folder instead (as DIR/pemba/v1).
# The generator and its pins (requirements.txt) live in .venv-proto, made on the first run and when a pin changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment=.venv-proto
pins=proto/requirements.txt
if ! cmp --silent "$pins" "$environment/pins"; then
  python3 -m venv --clear "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --requirement "$pins"
  cp "$pins" "$environment/pins" # last: an interrupted installation is made again
fi

out=${1:-src}
mkdir -p "$out/pemba/v1"
rm -f "$out"/pemba/v1/*_pb2*.py "$out"/pemba/v1/*_pb2*.pyi # those of protos that are gone
PATH="$PWD/$environment/bin:$PATH" "$environment/bin/python" -m grpc_tools.protoc --proto_path=proto \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
  proto/pemba/v1/*.proto
