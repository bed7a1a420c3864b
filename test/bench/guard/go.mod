module github.com/tamshai/phoenix/test/bench/guard

go 1.26.0

require (
	github.com/tamshai/phoenix v0.0.0
	github.com/wasilibs/go-re2 v1.13.0
)

require (
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace github.com/tamshai/phoenix => ../../..
