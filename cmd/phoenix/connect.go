package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/provision"
	"github.com/tamshai/phoenix/secrets"
)

// estateFlag names the estate file.
func estateFlag() cli.Flag {
	return &cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "the estate `FILE`", TakesFile: true}
}

// vaultFlags say where Vault is and who asks. There is none for a token:
// everybody on the machine can read a command line.
func vaultFlags() []cli.Flag {
	from := func(name, variable, usage string) cli.Flag {
		return &cli.StringFlag{Category: "Vault", Name: name, Usage: usage, Sources: cli.EnvVars(variable)}
	}
	return []cli.Flag{
		from("address", "VAULT_ADDR", "Vault's `URL`"),
		from("namespace", "VAULT_NAMESPACE", "an enterprise `NAMESPACE`"),
		from("ca-cert", "VAULT_CACERT", "the PEM `FILE` of Vault's CA (VAULT_CACERT_BYTES: the PEM itself)"),
		from("client-cert", "VAULT_CLIENT_CERT", "a client certificate's PEM `FILE`"),
		from("client-key", "VAULT_CLIENT_KEY", "its key's PEM `FILE`"),
		from("tls-server-name", "VAULT_TLS_SERVER_NAME", "the `NAME` in Vault's certificate"),
		from("timeout", "VAULT_CLIENT_TIMEOUT", "the longest one request may take, like 15s"),
		&cli.DurationFlag{Category: "Vault", Name: "wait", Value: 10 * time.Second, Usage: "how long to wait for a Vault that is away, sealed or overloaded"},
		&cli.StringFlag{Category: "Operator", Name: "token-file", Usage: "the `FILE` of the operator's token; otherwise VAULT_TOKEN has it", TakesFile: true},
		&cli.StringFlag{Category: "Operator", Name: "github-oidc", Usage: "log in as the JWT `ROLE` with this GitHub Actions job's identity"},
	}
}

// patience is --wait as provision takes it, where zero means a default.
func patience(cmd *cli.Command) time.Duration {
	if wait := cmd.Duration("wait"); wait > 0 {
		return wait
	}
	return -1
}

// loadEstate reads the file that --file names.
func loadEstate(cmd *cli.Command) (*provision.Estate, error) {
	path := cmd.String("file")
	if path == "" {
		return nil, usagef("--file is missing; name the estate, like -f estate.yaml")
	}
	e, err := provision.LoadFile(path)
	if err != nil && !errors.Is(err, provision.ErrEstate) {
		return nil, usagef("--file: %s", strings.TrimPrefix(err.Error(), "provision: estate: "))
	}
	return e, err
}

// connect returns a client with the operator's token, and a function that ends
// the session if it was opened here.
func connect(ctx context.Context, cmd *cli.Command, estate *provision.Estate) (*vault.Client, func() error, error) {
	cfg, err := vaultConfig(cmd)
	if err != nil {
		return nil, nil, err
	}
	client, err := vault.New(cfg)
	if err != nil {
		return nil, nil, usagef("%v", err)
	}
	if role := cmd.String("github-oidc"); role != "" {
		return logIn(ctx, cmd, client, estate, role)
	}
	token, err := operatorToken(cmd)
	if err == nil {
		client, err = client.WithToken(token)
	}
	if err != nil {
		return nil, nil, err
	}
	return client, func() error { client.Close(); return nil }, nil
}

func vaultConfig(cmd *cli.Command) (vault.Config, error) {
	if value := os.Getenv("VAULT_SKIP_VERIFY"); value != "" {
		if skip, err := strconv.ParseBool(value); err != nil || skip {
			return vault.Config{}, usagef("VAULT_SKIP_VERIFY would hand the operator's token to anybody; unset it, and name Vault's CA with --ca-cert or VAULT_CACERT")
		}
	}
	cfg := vault.Config{
		Addr: cmd.String("address"), Namespace: cmd.String("namespace"),
		CACertFile: cmd.String("ca-cert"), ServerName: cmd.String("tls-server-name"),
		ClientCertFile: cmd.String("client-cert"), ClientKeyFile: cmd.String("client-key"),
	}
	if cfg.CACertFile == "" {
		cfg.CACertPEM = []byte(os.Getenv("VAULT_CACERT_BYTES"))
	}
	if (cfg.ClientCertFile == "") != (cfg.ClientKeyFile == "") {
		return cfg, usagef("--client-cert and --client-key go together; give both or none")
	}
	if cfg.Addr == "" {
		return cfg, usagef("--address is missing; give Vault's address, like https://vault:8200, or set VAULT_ADDR")
	}
	var err error
	cfg.Timeout, err = parseTimeout(cmd.String("timeout"))
	return cfg, err
}

// parseTimeout reads seconds or a text like 15s; nothing is 0.
func parseTimeout(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	timeout, err := time.ParseDuration(text)
	if seconds, err2 := strconv.Atoi(text); err2 == nil {
		timeout, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || timeout <= 0 {
		return 0, usagef("--timeout (VAULT_CLIENT_TIMEOUT) is no duration; write it like 15s")
	}
	return timeout, nil
}

const maxToken = 16 << 10

// operatorToken finds the token in --token-file or VAULT_TOKEN.
func operatorToken(cmd *cli.Command) (secrets.Secret, error) {
	text, from := os.Getenv("VAULT_TOKEN"), "VAULT_TOKEN"
	if path := cmd.String("token-file"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			return secrets.Secret{}, usagef("--token-file: %v", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxToken))
		if err != nil {
			return secrets.Secret{}, usagef("--token-file: %v", err)
		}
		text, from = strings.TrimSpace(string(data)), "--token-file"
	}
	switch {
	case text == "" && from == "--token-file":
		return secrets.Secret{}, usagef("--token-file %s is empty; log in, and put the new token there", cmd.String("token-file"))
	case text == "":
		return secrets.Secret{}, usagef("there is no operator's token; set VAULT_TOKEN, or give --token-file or --github-oidc")
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return secrets.Secret{}, usagef("%s holds no token: it has a space or another character that no token has", from)
	}
	return secrets.NewString(text), nil
}

// endTime bounds the revocation of a session while everything else is over.
const endTime = 10 * time.Second

func logIn(ctx context.Context, cmd *cli.Command, client *vault.Client, estate *provision.Estate, role string) (*vault.Client, func() error, error) {
	g := estate.Pipeline.GitHub
	if g == nil {
		return nil, nil, usagef("--github-oidc needs vault.pipeline.github in %s, which says for whom the identity is", estate.File)
	}
	token := secrets.NewString(os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"))
	session, err := provision.GitHubLogin{
		Role: role, Mount: g.Mount, Audience: g.Audience,
		RequestURL: os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), RequestToken: token,
	}.Login(ctx, client)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return session, func() error {
		defer session.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if err := session.RevokeSelf(ctx); err != nil {
			return fmt.Errorf("the session could not be revoked; it ends by itself within %s: %w", g.TTL, err)
		}
		return nil
	}, nil
}
