#!/usr/bin/env bash
# `backtest.sh MODEL`: what replaying MODEL's history says, as markdown. Without PERENNIAL_TABLES it says that, and is no
# failure: a definition may be new, or the history out of this repository's reach.
set -euo pipefail
model=$1
echo "### \`$model\`"
echo
if [ -z "${PERENNIAL_TABLES:-}" ]; then
  echo "Not backtested: the environment \`history\` has no variable \`PERENNIAL_TABLES\`, the address of the tables."
  echo "::notice title=Not backtested::$model: set PERENNIAL_TABLES in the environment 'history'" >&2
  exit 0
fi
for name in PERENNIAL_TRACKING_URI AWS_ENDPOINT_URL AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
  [ -n "${!name:-}" ] || unset "$name"  # an unset variable of the environment arrives as an empty text
done
echo '```'
if ! "${PERENNIAL:-.venv/bin/perennial}" backtest "$model" 2> backtest.log; then
  tail -n 3 backtest.log
  echo '```'
  cat backtest.log >&2
  exit 1
fi
echo '```'
