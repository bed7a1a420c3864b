// Package provision is the operator's side: it makes Vault what an estate file
// says, and issues the SecretIDs that services boot from.
//
// [LoadFile] reads an estate, [NewPlan] compares it with Vault, [Plan.Apply]
// makes the difference go away, [Issue] issues; [NewIssuer] stays on a host and
// issues whenever a service has used what it had. Nothing is kept outside Vault:
// planning again is the way to find out where things stand.
//
// # The estate file
//
// One YAML document, without aliases or tags. What is unknown, doubled,
// dangling or out of reason is an error with its line, and all errors are
// reported at once. See examples/tamshai/estate.yaml for a whole deployment.
//
//	owner: tamshai-stage     # required: marks what this file owns in Vault
//	environment: stage       # for audit events
//
//	vault:
//	  networks: [data-network]    # those of the networks below that Vault is on
//	  kv: [tamshai]          # KV v2 mounts; references start with one of them
//	  approle:
//	    mount: approle                                # the default
//	    secret_id: {ttl: 10m}                         # 1m to 1h; uses: N needs allow_reuse: true
//	    token: {period: 1h, explicit_max_ttl: 30d}    # at most 30d
//	    cidrs: [10.0.0.0/8]                           # where logins may come from; default: anywhere
//	    max_wrap: 15m                                 # the longest wrapping that may be asked for
//	    lockout: {threshold: 100, duration: 1m, reset: 1m}    # or {disabled: true}
//	  pipeline:
//	    policy: phoenix-pipeline                      # the default
//	    github:                                       # a JWT role for GitHub Actions
//	      audience: https://github.com/tamshai
//	      repository: tamshai/infrastructure
//	      ref: refs/heads/main                        # this, environment, or both
//	      environment: stage
//	      mount: jwt                                  # and role: deploy, ttl: 15m, issuer, key_files
//
//	  issuer:                                         # a resident issuer; default: none
//	    role: phoenix-issuer                          # the default; its policy is named the same
//	    role_id: phoenix-issuer-tamshai-v1            # required, 16 characters or more
//	    services: [mcp-hr]                            # required: whom it issues for, or: all
//	    cidrs: [10.0.0.5/32]                          # required: its host's addresses
//	    secret_id_ttl: 90d                            # the default; 1h to 365d
//
//	networks: [data-network]
//
//	secrets:                 # mount/path (mount//path if the mount has slashes), then fields
//	  tamshai/mcp-gateway:   # and where each one's first value comes from
//	    claude_api_key: {env: CLAUDE_API_KEY}
//	    tls_key:        {file: keys/gateway.pem}      # without its last line break
//	    cookie_secret:  {generate: {length: 40, alphabet: alnum}}   # or bytes: 32; lower, hex, base64url
//
//	policies:                # shared; each path gives data and metadata
//	  mcp-service: {read: [tamshai/mcp-gateway]}
//
//	pki:                     # certificates; without this section Vault makes none
//	  root:         {mount: pki-root, ttl: 3650d}     # the defaults
//	  intermediate: {mount: pki, ttl: 365d}
//	  ttl: 24h                                        # of certificates; 10m to 7d
//	  trust_domain: tamshai.internal                  # adds spiffe://tamshai.internal/SERVICE; default: none
//	  url: https://vault:8200                         # in certificates: where CRL and issuer are; default: nowhere
//	  crl: {expiry: 24h, rebuild: 5m}                 # a revocation is on the CRL after 6m at the latest
//	  material:                                       # what "phoenix certs issue" writes
//	    postgres:                                     # a service or server; one folder, or a list of them
//	      dir: /etc/postgres/tls
//	      format: pem                                 # the default; also combined, pkcs8, pkcs12, or a list
//	      owner: root:999                             # default: whoever writes
//	      mode: 0640                                  # of what holds the key; default: 0600
//	      password_file: /run/keystore-password       # for pkcs12 alone
//	      reload: docker kill -s HUP postgres         # run by sh after a change
//
//	audit:                   # keys that sign audit logs; without this section Vault has none
//	  mount: transit                                # the default
//	  services: [mcp-hr]                            # required: whose logs, or: all
//
//	services:
//	  mcp-hr:
//	    role_id: mcp-hr-role-id-tamshai-v1            # required, 16 characters or more
//	    policies: [mcp-service]
//	    read: [tamshai/mcp-hr]                        # for it alone
//	    leases: [database/creds/mcp-hr]
//	    # secret_id, token and cidrs as under approle, for this service
//	    port: 3101                                    # and health, networks, calls, sans, databases
//
//	servers:                 # what does not boot through Phoenix
//	  postgres: {kind: postgres, port: 5432, networks: [data-network], sans: [postgres]}
//	databases:
//	  tamshai_hr: {server: postgres, owner: tamshai, role: tamshai_app}
//	database_users:          # users that Vault makes there; without this section it makes none
//	  mount: database                               # the default
//	  ttl: 12h                                      # of leases, and max_ttl: 23h; the defaults; at most 24h
//	  connections:                                  # by server, of the kinds postgres and mongodb
//	    postgres:
//	      password: {env: VAULT_POSTGRES_PASSWORD}  # required, or file: the first one, which Vault replaces
//	      user: vault                               # the default
//	      addr: postgres:5432                       # the default: the server's name and port
//	      database: postgres                        # where Vault logs in; the default; admin for mongodb
//	      ca: pki                                   # the default with a PKI: its roots; or {file: ca.pem},
//	                                                # which is sent, or {vault_file: /vault/ca.pem}, on Vault's host;
//	                                                # Vault before 1.18 needs the last
//	    mongodb:                                    # one that demands client certificates
//	      password: {env: VAULT_MONGODB_PASSWORD}
//	      ca: {vault_file: /vault/tls/ca.crt}
//	      client_file: /vault/tls/tls.pem           # Vault's certificate and key, on its host
//	  roles:                                        # database/creds/NAME
//	    mcp-hr: {database: tamshai_hr}              # with the rights of that database's role; also ttl, max_ttl,
//	                                                # and creation, revocation: lists of statements
//	    mcp-sales: {database: tamshai_sales, grant: [readWrite]}    # MongoDB: roles on that database
//	  static:                                       # database/static-creds/NAME
//	    tamshai_app: {server: postgres, rotation: 24h}              # the default; user: NAME is too
//	keycloak:
//	  realm: tamshai-corp
//	  clients: {mcp-gateway: tamshai/mcp-gateway#keycloak_client_secret}
//	endpoints:               # what listens: every service and server with a port, at NAME:PORT with
//	                         # its sans as identity. This changes them by name, and adds others.
//	  mcp-hr:  {addr: "10.0.0.5:3101", identity: [mcp-hr, spiffe://tamshai.example/mcp-hr]}
//	  hr-grpc: {addr: "mcp-hr:4101", protocol: tls}    # https (the default), postgres, mongodb, redis, tls
//	  mongodb: {client: {cert: keys/sales.pem, key: keys/sales.key}}    # whom it accepts
//	  caddy:   {public: true, identity: [tamshai.example]}    # for everybody, without client certificates
//	  minio:   {skip: never leaves the host}                  # not checked, and why
//
// Endpoints, networks, places, servers, databases and Keycloak are checked and
// kept for other commands; provisioning looks at their SANs alone.
//
// # What is made of it
//
// In this order: the AppRole mount and its lockout, the KV mounts, the PKI, the
// keys for audit logs, the policies, the roles, the pipeline's policy and login, the initial values, the
// database users.
//
// A service's own policy is named phoenix-SERVICE. It reads the secrets and
// leases of the service, revokes exactly those leases, and destroys and looks
// up exactly the service's own SecretIDs, which is the proof that a used one is
// gone. The pipeline's policy issues SecretIDs only wrapped, takes them back by
// accessor, and sees all that a plan compares, of secrets the names of fields
// and no value. The issuer's does the first two, for its services, and no more;
// its credential is used again and again, and from its addresses alone.
//
// The PKI is a root and an intermediate below it, in a mount each, with keys
// that are made in Vault and never leave it: on a Vault that is rebuilt, all
// certificates are new. Each service, and each server with SANs, has a role of
// its name that gives exactly its SANs; a service's own policy lets it have
// requests signed by that role alone, for keys that it has made itself. Vault
// cannot bound which addresses a role gives: one that has an address among its
// SANs gives any address, which is why peers are known by their names. A service
// with leases of database users also has the role SERVICE-db, for certificates
// whose common name is one of those users. See [Roll] for new authorities.
//
// A service of the audit section has the Ed25519 key transit/keys/SERVICE, which
// can be neither exported nor deleted. Its own policy signs with that key alone
// (bootstrap.Config.Signer: transit/sign/SERVICE) and reads its public half. On
// a Vault that is rebuilt the keys are new: keep the public ones for as long as
// logs are to be verified.
//
// # Users on databases
//
// Vault reaches a server over TLS that it verifies (sslmode=verify-full), as a
// user that may make roles and is no superuser. Beforehand a superuser of the
// server runs what "phoenix db sql" prints ([Estate.DatabaseSQL]); it names what
// is missing as well ([Estate.DatabaseNeeds]). The stage is the last, because
// the server's certificate comes from the PKI: apply the others, start the
// server, apply all.
//
// A roll of the PKI waits until each connection that was sent the roots has the
// new one, which the next application of the stage sends.
//
// The password is sent when a connection is made, and never again. The
// connection serves no role until Vault has replaced that password by one of its
// own. That one dies with Vault: on a Vault that is rebuilt, apply stops at the
// connection, until the server's superuser has run phoenix db sql --after-wipe.
//
// A user in PostgreSQL is a member of its database's role and has nothing else.
// When its lease ends it cannot log in any more, its sessions are ended, what it
// made goes to the role, and it is dropped. Should it own something in another
// database than Vault's, it stays, without login. A user in MongoDB is one of
// the database admin.
//
// The lockout is loosened rather than left alone. Vault's own (five failures,
// fifteen minutes) lets one service that restarts on a spent SecretID, or
// anybody who knows a RoleID, which is no secret, keep the fresh and valid
// SecretID of that service out for fifteen minutes. A SecretID is 122 random
// bits and lives ten minutes; a hundred guesses a minute do not find it, and a
// hundred failures a minute are no service that restarts.
//
// An initial value is written with check-and-set onto a secret that does not
// exist, with all its fields. What exists is never changed: a field that is
// declared and missing is added to the version that was seen.
//
// # The owner's marker
//
// Pruning removes what the owner has made and the estate has no more, and
// nothing else: a policy carries "phoenix owner=NAME" as the name in its text,
// an auth mount as its description. A role is the owner's if it carries its own
// generated policy, and that is the owner's. A PKI role is the owner's if its
// mount is, and so is a role of the database engine. KV and PKI mounts and what
// they keep are never removed, nor are connections to databases, without which
// their leases could not be revoked. Two estates in one Vault need two owners.
package provision
