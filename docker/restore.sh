#!/usr/bin/env bash
# docker/restore.sh FOLDER: puts back what docker/backup.sh saved, in place of what is there, and starts the service.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/compose.sh

from=${1:?which folder? for example: make restore FROM=backup/2026-01-31}
[ -f "$from/sha256sums" ] || fail "$from is no backup: it has no sha256sums"
(cd "$from" && sha256sum --quiet --check sha256sums) || fail "$from is damaged; nothing was changed"
in_object_storage || [ -f "$from/artifacts.tar" ] || fail "$from has no artifacts; nothing was changed"

compose up -d postgres redis
until compose exec -T postgres pg_isready --quiet --username=frs --dbname=frs --host=127.0.0.1; do sleep 1; done
sql() { compose exec -T postgres psql --quiet --username=frs --dbname=postgres --set=ON_ERROR_STOP=1 --command="$1"; }
in_data() { compose run --rm --no-deps -T migrate sh -c "cd /data && $1"; }

# both whole beside what is there, then both in its place
sql 'DROP DATABASE IF EXISTS restored' && sql 'CREATE DATABASE restored'
compose exec -T postgres pg_restore --username=frs --dbname=restored --no-owner --exit-on-error <"$from/database.dump"
in_object_storage || in_data 'rm -rf restored && mkdir restored && tar -C restored -xf -' <"$from/artifacts.tar"
compose stop api worker
sql 'DROP DATABASE frs WITH (FORCE)' && sql 'ALTER DATABASE restored RENAME TO frs'
in_object_storage || in_data 'rm -rf artifacts && mv restored artifacts' </dev/null
compose up -d
echo "Restored. Jobs that ran when the backup was made go on from their last checkpoint."
