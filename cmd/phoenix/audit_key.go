package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
)

func auditKeyCommand() *cli.Command {
	return &cli.Command{
		Name:   "key",
		Usage:  "make a signing key, or print the public half of one",
		Action: needsCommand,
		Commands: []*cli.Command{
			{
				Name:      "new",
				Usage:     "make an Ed25519 key to sign checkpoints with",
				ArgsUsage: "FILE",
				Description: `Example:
   phoenix audit key new /etc/phoenix/audit.key

The private key is written to FILE, which only its owner can read, and the
public one to FILE.pub and to standard output. Neither file is ever replaced:
without its public key no log can be verified. Keep the public key somewhere
else: whoever verifies needs it from a place that the host cannot change. Who
is root on the host has the private key; only anchors tell then.`,
				Action: newAuditKey,
			},
			{
				Name:      "public",
				Usage:     "print the public half of a key",
				ArgsUsage: "[FILE]",
				Description: `Examples:
   phoenix audit key public /etc/phoenix/audit.key > audit.pub
   phoenix audit key public --vault transit/sign/mcp-hr > mcp-hr.pub

With --vault every version of the key is printed, the oldest first: --key of
the other commands takes them all. Print them again after the key was rotated.`,
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "vault", Usage: "of the key `REF` in Vault's transit engine: mount/sign/key"},
				}, vaultFlags()...),
				Action: publicAuditKey,
			},
		},
	}
}

// keyFile is the argument of the commands here.
func keyFile(cmd *cli.Command) (string, error) {
	switch args := cmd.Args(); {
	case args.First() == "":
		return "", usagef("the key's file is missing; see %s --help", cmd.FullName())
	case args.Len() > 1:
		return "", usagef("unexpected argument %q; see %s --help", args.Get(1), cmd.FullName())
	}
	return cmd.Args().First(), nil
}

func newAuditKey(_ context.Context, cmd *cli.Command) error {
	path, err := keyFile(cmd)
	if err != nil {
		return err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	defer clear(private)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	defer clear(secret)
	open, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	defer clear(text)
	publicText := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: open})
	if _, err := os.Lstat(path + ".pub"); err == nil {
		return fmt.Errorf("%s.pub is there already, and keys are not replaced; choose another name", path)
	}
	if err := writeNew(path, text, 0o600); err != nil {
		return err
	}
	if err := writeNew(path+".pub", publicText, 0o644); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	_, err = os.Stdout.Write(publicText)
	return err
}

// writeNew writes a file that must not be there yet, and makes it durable.
func writeNew(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and keys are not replaced; choose another name", path)
	}
	if err != nil {
		return usagef("%v", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func publicAuditKey(ctx context.Context, cmd *cli.Command) error {
	if ref := cmd.String("vault"); ref != "" {
		if extra := cmd.Args().First(); extra != "" {
			return usagef("unexpected argument %q; give a file or --vault", extra)
		}
		return publicVaultKey(ctx, cmd, ref)
	}
	path, err := keyFile(cmd)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return usagef("%v", err)
	}
	defer clear(data)
	keys, err := auditlog.ParsePublicKeys(data)
	if err != nil {
		return usagef("%s: %s; phoenix audit key new makes one", path, trimRoom(err))
	}
	return printKeys(keys)
}

func publicVaultKey(ctx context.Context, cmd *cli.Command, ref string) (err error) {
	if _, _, err := vault.SplitSigner(ref); err != nil {
		return usagef("--vault: %s", strings.TrimPrefix(err.Error(), "vault: "))
	}
	client, end, err := connect(ctx, cmd, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	ctx, cancel := context.WithTimeout(ctx, max(cmd.Duration("wait"), time.Second))
	defer cancel()
	var key *vault.SigningKey
	err = client.Retry(ctx, ref, func(ctx context.Context) (err error) {
		key, err = client.SigningKey(ctx, ref)
		return err
	})
	if err != nil {
		return err
	}
	var keys []ed25519.PublicKey
	for _, version := range slices.Sorted(maps.Keys(key.Public)) {
		keys = append(keys, key.Public[version])
	}
	return printKeys(keys)
}

func printKeys(keys []ed25519.PublicKey) error {
	for _, key := range keys {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return err
		}
		if err := pem.Encode(os.Stdout, &pem.Block{Type: "PUBLIC KEY", Bytes: der}); err != nil {
			return err
		}
	}
	return nil
}
