package bench_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tamshai/phoenix/dbconn"
	"github.com/tamshai/phoenix/internal/realpg"
)

const (
	postureTables = 3000
	postureRuns   = 10
	postureGoal   = time.Second // each boot and each rotation waits for it
)

// Posture on 3,000 tables that the role reads, half of them without row-level
// security, with the roles of 500 leases: each open table is a finding, so that
// this is the dear case. The connection is a new one each time, as at a rotation.
func BenchmarkDatabasePosture(b *testing.B) {
	for _, version := range []int{15, 16} {
		b.Run(fmt.Sprint("PostgreSQL_", version), func(b *testing.B) {
			pg := realpg.Start(b, realpg.Config{Version: version})
			pg.Exec(b, "postgres", fmt.Sprintf(`CREATE ROLE tamshai_app; CREATE ROLE keeper;
				DO $$ BEGIN
					FOR i IN 1..%d LOOP
						EXECUTE format('CREATE TABLE t_%%s (id int, tenant text, a int, b int, c int)', i);
						EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON t_%%s TO tamshai_app', i);
						IF i %% 2 = 0 THEN
							EXECUTE format('ALTER TABLE t_%%s ENABLE ROW LEVEL SECURITY', i);
							EXECUTE format('CREATE POLICY own ON t_%%s USING (tenant = current_setting(''app.tenant'', true))', i);
						END IF;
					END LOOP;
					FOR i IN 1..500 LOOP EXECUTE format('CREATE ROLE lease_%%s IN ROLE keeper', i); END LOOP;
				END $$`, postureTables), "ANALYZE")
			var took []time.Duration
			for b.Loop() {
				took = took[:0]
				for range postureRuns {
					conn := pg.Connect(b, "postgres")
					began := time.Now()
					r, err := dbconn.Posture(b.Context(), conn, dbconn.PostureConfig{Role: "tamshai_app"})
					took = append(took, time.Since(began))
					check(b, err)
					check(b, conn.Close(context.WithoutCancel(b.Context())))
					if r.Tables != postureTables || r.Protected != postureTables/2 || len(r.Findings) != postureTables/2 {
						b.Fatalf("%d findings, %d tables, %d protected", len(r.Findings), r.Tables, r.Protected)
					}
				}
			}
			fmt.Printf("PostgreSQL %d: posture of %d tables p50 %.0f ms, max %.0f ms of %d (goal %.0f ms: %s)\n", version, postureTables,
				ms(median(took)), ms(slices.Max(took)), len(took), ms(postureGoal), verdict(median(took) <= postureGoal))
			b.ReportMetric(ms(median(took)), "p50-ms")
		})
	}
}
