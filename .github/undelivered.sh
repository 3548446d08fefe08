#!/usr/bin/env bash
# `undelivered.sh REGISTRY`: `undelivered=[{"model": …, "version": …}, …]`, the champions without an image of their own.
# What an event says is a hint; who reigns is read from the tables.
set -euo pipefail
registry=$1
if [ -z "${PERENNIAL_TABLES:-}" ]; then
  echo "::notice title=No champion looked at::the environment has no PERENNIAL_TABLES, the address of the tables" >&2
  echo "undelivered=[]"
  exit 0
fi
for name in PERENNIAL_TRACKING_URI AWS_ENDPOINT_URL AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
  [ -n "${!name:-}" ] || unset "$name"  # an unset variable of the environment arrives as an empty text
done
status=$("${PERENNIAL:-.venv/bin/perennial}" status --json)
jq --raw-output '.[] | select(.champion != null) | "\(.model) \(.champion)"' <<< "$status" |
  while read -r model version; do
    docker manifest inspect "$registry/perennial-$model:$version" > /dev/null 2>&1 ||
      jq --null-input --compact-output --arg model "$model" --argjson version "$version" '{$model, $version}'
  done | jq --slurp --compact-output . | sed 's/^/undelivered=/'
