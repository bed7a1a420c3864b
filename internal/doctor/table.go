package doctor

// Checks returns the table of checks, in the order in which they run.
func Checks() []Check {
	const both = InOperator | InService
	return []Check{
		{"config.skip_verify", InService, "VAULT_SKIP_VERIFY in the environment", nothing, (*exam).skipVerify},
		{"config.env", InService, "configuration that is missing or malformed, and what was found", nothing, (*exam).environment},
		{"config.token", InService, "a Vault token in a service's environment", nothing, (*exam).strayToken},
		{"config.proxy", both, "a proxy in the environment, which Phoenix ignores and others obey", nothing, (*exam).proxy},
		{"config.role_id", InService, "no RoleID", nothing, (*exam).roleID},

		{"secretid.present", InService, "no SecretID, or nothing usable where it should be", nothing, (*exam).secretIDPresent},
		{"secretid.env", InService, "a SecretID in the environment, where /proc shows it", nothing, (*exam).secretIDInEnv},
		{"secretid.mode", InService, "a SecretID's file, or its folder, that others may read or replace", nothing, (*exam).secretIDMode},
		{"secretid.tmpfs", InService, "a SecretID's file on a disk", nothing, (*exam).secretIDOnDisk},
		{"secretid.wrapped", InService, "a SecretID that is not wrapped, so that nobody sees whether it was read", nothing, (*exam).secretIDWrapped},

		{"host.swap", InService, "swap that memory and tmpfs can reach", nothing, (*exam).swap},
		{"host.hibernation", InService, "hibernation, which writes memory to a disk", nothing, (*exam).hibernation},
		{"host.core", InService, "core dumps, which hold every secret", nothing, (*exam).coreDumps},
		{"host.memlock", InService, "a limit on locked memory that is too small", nothing, (*exam).memlock},
		{"host.ptrace", InService, "processes of one user that may read each other's memory", nothing, (*exam).ptrace},
		{"host.root", InService, "running as root", nothing, (*exam).root},
		{"host.pid1", InService, "a PID 1 that reaps no orphans and forwards no signals", nothing, (*exam).pid1},

		{"network.vault", InOperator, "services on no network that reaches Vault", nothing, (*exam).vaultNetworks},

		{"vault.address", both, "an address that cannot be used, or sends tokens in the clear", nothing, (*exam).address},
		{"vault.ca", both, "a CA file that is missing, ends soon, or can be replaced by others", nothing, (*exam).caFile},
		{"vault.dns", both, "a name that does not resolve from here", address, (*exam).dns},
		{"vault.tcp", both, "no way to Vault from here, and why", address, (*exam).tcp},
		{"vault.tls", both, "a certificate that ends soon, has another name or another CA", open, (*exam).certificate},
		{"vault.health", both, "Vault sealed, not initialised or in standby", open, (*exam).health},
		{"vault.version", both, "a version with known traps", active, (*exam).version},
		{"vault.clock", both, "a clock that differs from Vault's", active, (*exam).clock},

		{"operator.token", InOperator, "a root token, or one that ends soon or never", active, (*exam).operatorToken},
		{"operator.capabilities", InOperator, "what the token may not do of what the estate needs", token, (*exam).capabilities},
		{"operator.others", InOperator, "other root tokens, and tokens that never end", token, (*exam).otherTokens},

		{"server.audit", InOperator, "no audit device", token, (*exam).auditDevices},
		{"server.approle", InOperator, "no AppRole mount", token, (*exam).appRole},
		{"server.lockout", InOperator, "a lockout that keeps services out after a few failures", token, (*exam).lockout},
		{"server.ttl", InOperator, "a maximum TTL below the period of tokens", token, (*exam).maxTTL},
		{"server.kv", InOperator, "KV mounts that are missing or not version 2", token, (*exam).kvMounts},

		{"role.exists", InOperator, "services without a role", token, (*exam).roleExists},
		{"role.role_id", InOperator, "a RoleID other than the estate's", token, (*exam).roleRoleID},
		{"role.token_type", InOperator, "batch tokens, which can be neither renewed nor revoked", token, (*exam).roleTokenType},
		{"role.period", InOperator, "tokens that renewal does not keep alive", token, (*exam).rolePeriod},
		{"role.max_ttl", InOperator, "tokens without an end, or with one too far or too near", token, (*exam).roleMaxTTL},
		{"role.uses", InOperator, "tokens that end after a number of requests", token, (*exam).roleUses},
		{"role.secret_id_uses", InOperator, "SecretIDs that work more than once", token, (*exam).secretIDUses},
		{"role.secret_id_ttl", InOperator, "SecretIDs that live too long", token, (*exam).secretIDTTL},
		{"role.cidrs", InOperator, "addresses that the estate has and the role refuses", token, (*exam).roleCIDRs},
		{"role.policies", InOperator, "policies that are missing, in Vault or on the role", token, (*exam).rolePolicies},
		{"role.self", InOperator, "policies that do not let a token look up, renew and revoke itself", token, (*exam).roleSelf},
		{"role.proof", InOperator, "policies that do not allow the proof that a SecretID is gone", token, (*exam).roleProof},
		{"role.reads", InOperator, "policies that do not allow what the service reads", token, (*exam).roleReads},
		{"role.metadata", InOperator, "policies without metadata, so that each poll reads the data", token, (*exam).roleMetadata},
		{"role.leases", InOperator, "policies that do not allow the service's leases, or giving them back", token, (*exam).roleLeases},

		{"pipeline.wrapping", InOperator, "policies that may issue SecretIDs unwrapped", token, (*exam).wrapping},

		{"secret.fields", InOperator, "declared secrets that are missing, deleted or lack fields", token, (*exam).secretFields},
		{"secret.read", InOperator, "secrets that services read and nobody has written", token, (*exam).secretReads},
		{"lease.role", InOperator, "leases whose role is missing in their engine", token, (*exam).leaseRoles},
		{"lease.ttl", InOperator, "leases that end too soon, or are cut by the token's end", token, (*exam).leaseTTLs},

		{"database.connection", InOperator, "servers that Vault does not reach as it should: no connection, unverified, the first password not replaced", token, (*exam).databaseConnections},
		{"database.tls", InOperator, "database servers without TLS, with a certificate of another name or CA, or one that ends soon", token, (*exam).databaseTLS},
		{"database.role", InOperator, "users that live for more than a day, or whose statements lead past policies or leave sessions behind", token, (*exam).databaseRoles},
		{"database.static", InOperator, "passwords of static roles that are not changed each day", token, (*exam).databaseStatic},
		{"database.users", InDatabases, "users that Vault cannot make or take back; makes one with each role", token, (*exam).databaseUsers},

		{"secretid.wrapping", InService, "a wrapped SecretID that is used, expired, or another role's; looked up, not spent", active, (*exam).secretIDWrapping},
		{"login.session", InLogin, "a login that fails; spends the SecretID", active, (*exam).logIn},
		{"login.token", InLogin, "a token that is batch, not renewable, not periodic or without end", token, (*exam).loginToken},
		{"login.self", InLogin, "a token that may not look up, renew and revoke itself", token, (*exam).loginSelf},
		{"login.proof", InLogin, "a SecretID that is not proven gone", token, (*exam).loginProof},
		{"login.secrets", InLogin, "declared secrets that the token may not read", token, (*exam).loginSecrets},
		{"login.metadata", InLogin, "declared secrets whose metadata the token may not read", token, (*exam).loginMetadata},
		{"login.leases", InLogin, "declared leases that the token may not obtain", token, (*exam).loginLeases},
		{"login.ticket", InLogin, "a token that may not wrap itself into a restart ticket", token, (*exam).loginTicket},
		{"login.cidrs", InLogin, "a token that works from any address", token, (*exam).loginCIDRs},
	}
}
