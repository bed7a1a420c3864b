module github.com/tamshai/phoenix/test/bench/spiffe

go 1.26.0

require (
	github.com/spiffe/go-spiffe/v2 v2.9.0
	github.com/tamshai/phoenix v0.0.0
)

replace github.com/tamshai/phoenix => ../../..
