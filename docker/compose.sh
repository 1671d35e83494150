# Sourced by the scripts beside it: which compose there is, and what .env says.
fail() { echo "$*" >&2; exit 1; }

if docker compose version >/dev/null 2>&1; then
  compose() { docker compose "$@"; }
elif command -v docker-compose >/dev/null; then
  compose() { docker-compose "$@"; }
else
  fail "neither 'docker compose' nor docker-compose is there"
fi
[ -f .env ] || fail "there is no .env; run make env"
FRS_ARTIFACTS_URL=${FRS_ARTIFACTS_URL:-$(sed -n 's/^FRS_ARTIFACTS_URL=//p' .env | tail -n 1)}
in_object_storage() { case "${FRS_ARTIFACTS_URL#file://}" in *://*) return 0 ;; *) return 1 ;; esac; }
