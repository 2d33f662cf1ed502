#!/usr/bin/env bash
# Installs what this machine lacks to run Siyu without containers: uv and the Python packages, Java 17+ and Maven,
# Kafka's jars. Safe to run again; says nothing when nothing is missing. --compose also wants `docker compose config`.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$HOME/.local/bin:$PATH" PIP_ROOT_USER_ACTION=ignore

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 2; }

apt_updated=
debian() { # debian PACKAGE WHAT-FOR
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        say "installing $1 ($2)"
        [ -n "$apt_updated" ] || apt-get update -qq
        apt_updated=1
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
    else
        stop "$2 is missing. Install the package $1 (Debian/Ubuntu: sudo apt-get install $1), or use containers: docker compose up"
    fi
}

java_major() { java -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p'; }

command -v make >/dev/null || debian make "make"
command -v python3 >/dev/null || debian python3 "Python"
if ! command -v java >/dev/null || [ "$(java_major)" -lt 17 ]; then
    debian openjdk-17-jre-headless "Java 17 for Kafka"
fi
command -v mvn >/dev/null || debian maven "Maven, which resolves Kafka"

if ! command -v uv >/dev/null; then
    say "installing uv"
    python3 -m pip --version >/dev/null 2>&1 || debian python3-pip "pip, which installs uv"
    python3 -m pip install --quiet --user uv 2>/dev/null \
        || python3 -m pip install --quiet --user --break-system-packages uv \
        || stop "uv could not be installed: see https://docs.astral.sh/uv/"
    hash -r
fi
uv sync --frozen --quiet

if [ "${1:-}" = --compose ] && ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
    debian docker-compose "docker compose, which checks docker-compose.yml"
fi

uv run --frozen python -m deploy.local.kafka --resolve-only
