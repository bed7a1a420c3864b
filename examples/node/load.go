package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// hired is the gateway's answer to a hire.
type hired struct {
	Name    string `json:"name"`
	HiredBy string `json:"hired_by"`
	Salary  int    `json:"salary"`
}

// Drive has workers hire people through the gateway, one after the other each,
// until ctx ends, and returns how many they hired. Every answer is looked at: the
// first one that is not as it must be ends the load, with an error.
func Drive(ctx context.Context, client *http.Client, url string, workers int) (hires int64, err error) {
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Int64
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for n := 0; stop.Err() == nil; n++ {
				// A request that has begun is seen through.
				if err := Hire(context.WithoutCancel(ctx), client, url, fmt.Sprintf("person %d of worker %d", n, worker)); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	if err := context.Cause(stop); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return done.Load(), err
	}
	return done.Load(), nil
}

// Hire has ada hire a person.
func Hire(ctx context.Context, client *http.Client, url, name string) error {
	var got hired
	body, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		return err
	}
	if err := ask(ctx, client, http.MethodPost, url+"/hires", string(body), http.StatusCreated, &got); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if want := (hired{name, "ada", 58000}); got != want {
		return fmt.Errorf("got %+v, want %+v", got, want)
	}
	return nil
}

func ask(ctx context.Context, client *http.Client, method, url, body string, want int, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer ada")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var raw json.RawMessage
	err = json.NewDecoder(resp.Body).Decode(&raw)
	if resp.StatusCode != want {
		return fmt.Errorf("%s: %s", resp.Status, raw)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

// ProofConfig is a load, and what goes on meanwhile. All is required.
type ProofConfig struct {
	Client       *http.Client
	URL          string // of the gateway, for the client
	Workers      int
	Users        int                         // how often the user of the database is replaced
	Certificates int                         // how often each service's certificate is, at least
	Admin        *pgx.Conn                   // a superuser's, to the database
	HandOver     func(context.Context) error // leaves a new SecretID for HR
}

// A Proof is what came of a load.
type Proof struct {
	Hires        int64
	Rows         int64          // that came to HR's table meanwhile
	Distinct     int64          // names among them
	Users        int64          // of the database that wrote them
	Certificates map[string]int // that each service got meanwhile
	Took         time.Duration
}

// Prove hires people while the database's users and all certificates are replaced.
// It fails if a request does, or if the table is not what was answered.
func (f *Fleet) Prove(ctx context.Context, cfg ProofConfig) (p Proof, err error) {
	begin := time.Now()
	var last, start int64
	if err := cfg.Admin.QueryRow(ctx, "SELECT coalesce(max(id), 0) FROM employees").Scan(&start); err != nil {
		return p, err
	}
	before := f.certificates()
	load, stop := context.WithCancel(ctx)
	defer stop()
	var broken error
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Hires, broken = Drive(load, cfg.Client, cfg.URL, cfg.Workers)
	}()
	err = f.replace(load, cfg, before, done)
	stop()
	<-done
	if err = errors.Join(broken, err); err != nil {
		return p, err
	}
	p.Certificates = f.certificates()
	for service, n := range before {
		p.Certificates[service] -= n
	}
	err = cfg.Admin.QueryRow(ctx, `SELECT count(*), count(DISTINCT name), count(DISTINCT as_user), coalesce(max(id), 0)
		FROM employees WHERE id > $1 AND hired_by = 'ada' AND grade = 7`, start).Scan(&p.Rows, &p.Distinct, &p.Users, &last)
	if err == nil && (p.Rows != p.Hires || p.Distinct != p.Hires) {
		err = fmt.Errorf("%d hires were answered, and there are %d rows, %d of them distinct", p.Hires, p.Rows, p.Distinct)
	}
	p.Took = time.Since(begin)
	return p, err
}

// replace replaces the users of the database, one after the other, and waits until
// as many certificates of each service have been.
func (f *Fleet) replace(ctx context.Context, cfg ProofConfig, before map[string]int, done <-chan struct{}) error {
	until := func(what string, ok func() (bool, error)) error {
		for {
			if yes, err := ok(); err != nil || yes {
				return err
			}
			select {
			case <-done:
				return fmt.Errorf("the load ended before %s", what)
			case <-ctx.Done():
				return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	user := func() (name string, n int, err error) {
		err = cfg.Admin.QueryRow(ctx, "SELECT coalesce(max(rolname), ''), count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").Scan(&name, &n)
		return name, n, err
	}
	for range cfg.Users {
		old, _, err := user()
		if err != nil {
			return err
		}
		if err := cfg.HandOver(ctx); err != nil {
			return err
		}
		err = until("the old user of the database was dropped", func() (bool, error) {
			name, n, err := user()
			return n == 1 && name != old, err
		})
		if err != nil {
			return err
		}
	}
	return until("every service had its certificates", func() (bool, error) {
		for service, n := range f.certificates() {
			if n-before[service] < cfg.Certificates {
				return false, nil
			}
		}
		return true, nil
	})
}

// certificates is how many certificates each service has got, by its agent's log.
func (f *Fleet) certificates() map[string]int {
	n := map[string]int{}
	for service := range f.agents {
		n[service] = strings.Count(f.Log(service), "action=session.certificate.published")
	}
	return n
}
