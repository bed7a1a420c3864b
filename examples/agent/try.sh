#!/bin/sh
# Runs the Node service behind the agent, on a real Vault in memory. It needs
# phoenix, phoenix-agent, node and curl on the PATH, and Vault: VAULT_BIN, or the
# one that "make servers" builds.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
vault=${VAULT_BIN:-${PHOENIX_CACHE:-$here/../../.cache}/bin/vault}
for program in phoenix phoenix-agent node curl "$vault"; do
	command -v "$program" >/dev/null || { echo "try.sh: there is no $program; see README.md" >&2; exit 1; }
done

memory=$(mktemp -d /dev/shm/phoenix-example.XXXXXX)
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
port=$((20000 + $$ % 10000))
vaultpid= agent=
finish() {
	status=$?
	[ $status = 0 ] || cat "$memory/log" >&2 2>/dev/null || true
	[ -z "$agent" ] || kill "$agent" 2>/dev/null || true
	[ -z "$vaultpid" ] || kill "$vaultpid" 2>/dev/null || true
	rm -rf "$memory"
}
trap finish EXIT
say() { echo; echo "== $*"; }
# within SECONDS CMD…: tries until it succeeds.
within() {
	tries=$(($1 * 10)); shift
	until "$@" 2>/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { echo "try.sh: waited too long for: $*" >&2; exit 1; }
		sleep 0.1
	done
}

export VAULT_ADDR=http://127.0.0.1:$port
say "A Vault in memory at $VAULT_ADDR"
VAULT_DEV_ROOT_TOKEN_ID=$token "$vault" server -dev -dev-no-store-token -dev-listen-address="127.0.0.1:$port" >"$memory/vault.log" 2>&1 &
vaultpid=$!
within 60 curl -fsS -o /dev/null "$VAULT_ADDR/v1/sys/health"

say "Provision it, and issue a SecretID"
VAULT_TOKEN=$token phoenix provision apply -f "$here/estate.yaml" >/dev/null 2>"$memory/provision.log" || { cat "$memory/provision.log" >&2; exit 1; }
VAULT_TOKEN=$token phoenix issue -f "$here/estate.yaml" --service mcp-hr --audit-log "$memory/audit" --out "$memory/mcp-hr.env"

say "The service, behind the agent"
sed "s#/run/phoenix#$memory#; s#:3101/#:$((port + 7))/#" "$here/node/agent.yaml" >"$memory/agent.yaml"
(cd "$here/node" && PORT=$((port + 7)) PASSWORD_FILE=$memory/password VAULT_SECRET_ID_FILE=$memory/mcp-hr.env \
	exec phoenix-agent exec -config "$memory/agent.yaml" -poll 200ms -log-level warn) >"$memory/out" 2>"$memory/log" &
agent=$!
listen=unix:$memory/agent.sock
within 60 phoenix-agent check -listen "$listen" >/dev/null
cat "$memory/out"
curl -fsS "http://127.0.0.1:$((port + 7))/"

# put PATH FIELD: curl reads the secrets, because everybody can read a command line.
put() {
	printf 'header = "X-Vault-Token: %s"\ndata = "{\\"data\\": {\\"%s\\": \\"%s\\"}}"\n' \
		"$token" "$2" "$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')" |
		curl -fsS -o /dev/null -K - "$VAULT_ADDR/v1/tamshai/data/$1"
}
say "The file's secret changes: the service reads it again, and runs on"
put databases tamshai_app_password
within 60 grep -q reloaded "$memory/out"
tail -n 1 "$memory/out"

say "The variable's secret changes: the service is restarted"
put mcp-hr api_key
within 60 sh -c "[ \$(grep -c ^up '$memory/out') = 2 ]"
within 60 phoenix-agent check -listen "$listen" >/dev/null
curl -fsS "http://127.0.0.1:$((port + 7))/"

say "The end"
kill "$agent"
wait "$agent" && echo "the agent ended with the service's code: 0"
agent=
