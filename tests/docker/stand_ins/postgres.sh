#!/bin/bash
# Does what the official image's entrypoint does with what compose.yaml asks of it, as the user that it is started as.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb -U postgres -A scram-sha-256 --pwfile=<(printf %s "${POSTGRES_PASSWORD:?}") -E UTF8 --locale=C.UTF-8 >/dev/null
  sed -i 's/^\(local .*\) scram-sha-256$/\1 trust/' "$PGDATA/pg_hba.conf"
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl -w -o "-c listen_addresses='' -c unix_socket_directories=/run/postgresql" start >/dev/null
  export PGHOST=/run/postgresql
  for script in /docker-entrypoint-initdb.d/*.sh; do "$script"; done
  unset PGHOST
  pg_ctl -w -m fast stop >/dev/null
fi
exec "$@" -c unix_socket_directories=/run/postgresql
