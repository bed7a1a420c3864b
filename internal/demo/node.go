package demo

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tamshai/phoenix/examples/node"
	"github.com/tamshai/phoenix/provision"
)

// nodeCertLife leaves a loaded machine the time to move to the next certificate.
const nodeCertLife = 8 * time.Second

// node runs the gateway and two services in Node, each behind its agent, on the
// PostgreSQL of the scene before.
func (s *stage) node(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if s.pg == nil {
		s.say("skipped: there is no PostgreSQL on this machine, see above")
		return nil
	}
	cache, err := node.Cache()
	if err == nil {
		cache, err = node.Modules(ctx, cache, false)
	}
	if errors.Is(err, node.ErrMissing) {
		s.say("skipped: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "node")
	fleet, err := node.NewFleet(ctx, node.FleetConfig{
		Agent: s.cfg.Agent, Dir: dir, Modules: cache, VaultAddr: s.vault.addr(), VaultCA: s.vault.ca(), Postgres: node.LocalName(s.pg), Life: nodeCertLife,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	for _, service := range []string{node.HR, node.Finance, node.Gateway} {
		if err := s.issueTo(ctx, service, fleet.SecretID(service)); err != nil {
			return err
		}
		if err := fleet.Start(ctx, service); err != nil {
			return err
		}
		s.say("phoenix-agent exec -config %s -- node server.js", map[string]string{node.HR: "hr/agent.yaml", node.Finance: "finance/agent.yaml", node.Gateway: "gateway/agent.yaml"}[service])
	}
	env, err := fleet.Environment(node.HR)
	if err != nil {
		return err
	}
	if _, found := env["PGPASSWORD"]; found || env["PGUSER"] != node.HR {
		return errors.New("mcp-hr knows how to log in to the database")
	}
	s.say("%s speaks plain HTTP and knows a socket, PGHOST, and no password: its agent has both", node.HR)
	admin, err := s.pg.Open(ctx, node.Database)
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	proof, err := fleet.Prove(ctx, node.ProofConfig{
		Client: client, URL: "http://" + fleet.Addr(node.Gateway), Workers: 4, Users: 2, Certificates: 1, Admin: admin,
		HandOver: func(ctx context.Context) error { return s.issueTo(ctx, node.HR, fleet.SecretID(node.HR)) },
	})
	if err != nil {
		return err
	}
	s.say("4 workers hire through the gateway, on certificates of %s, while the database's user is replaced twice:", nodeCertLife)
	s.say("%d requests, %s, %d rows by %d users; certificates: %d, %d and %d", proof.Hires, s.paint(green, "0 failed"), proof.Rows, proof.Users,
		proof.Certificates[node.Gateway], proof.Certificates[node.HR], proof.Certificates[node.Finance])
	return nil
}

// issueTo leaves a SecretID in a file of its own, whole: the session that the
// service has in this process looks at another.
func (s *stage) issueTo(ctx context.Context, service, file string) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	defer client.Close()
	issued, err := provision.Issue(ctx, client, s.estate, []string{service}, provision.IssueConfig{})
	if err != nil {
		return err
	}
	s.scrub.Add(issued[0].SecretID)
	data, err := provision.EnvFile(issued)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
