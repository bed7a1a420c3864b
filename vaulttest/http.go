package vaulttest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// mux is the HTTP side of the server. It cleans paths as Vault's does.
func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/", s.serve)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { writeErrors(w, http.StatusNotFound) })
	return mux
}

// serve runs one request: journal, fault, Vault, fault.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	entry := s.journal.begin(r, s.clock.now())
	rec := recorder{w, func(status int) { s.journal.amend(func() { entry.Status = status }) }}

	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			writeErrors(rec, http.StatusRequestEntityTooLarge, "request body too large")
			return
		}
		writeErrors(rec, http.StatusBadRequest, err.Error())
		return
	}
	secretID := s.vault().secretIDAccessor(r.URL.Path, body)
	s.journal.amend(func() { entry.SecretIDAccessor = secretID })

	fault := s.faults.match(r)
	if !fault.wait(r.Context(), s.closing) {
		panic(http.ErrAbortHandler)
	}
	if fault.Seal {
		s.Seal()
	}
	if !fault.replaces() {
		s.answer(rec, r, body, entry)
		return
	}
	if fault.Process {
		s.answer(discarded{http.Header{}}, r, body, entry)
	}
	if fault.Cut {
		panic(http.ErrAbortHandler) // closes the connection, or resets the stream of HTTP/2
	}
	fault.write(rec)
}

// answer lets Vault process a request.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, body []byte, entry *Request) {
	c := s.vault()
	if c.serveStatus(w, r, body) {
		return
	}
	if leader, standby := c.redirect(); standby {
		if leader == "" {
			writeErrors(w, http.StatusInternalServerError, "local node not active but active cluster node not found")
			return
		}
		http.Redirect(w, r, strings.TrimSuffix(leader, "/")+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return
	}
	if c.isSealed() {
		writeErrors(w, http.StatusServiceUnavailable, errSealed.text)
		return
	}
	req, err := parseRequest(r, body)
	if err != nil {
		writeOutcome(w, opRead, outcome{err: err})
		return
	}
	out := c.serve(req)
	s.journal.amend(func() { entry.Accessor = out.accessor })
	writeOutcome(w, req.op, out)
}

// noBody, as a response's raw body, stands for none at all.
var noBody = &struct{}{}

func writeOutcome(w http.ResponseWriter, op operation, out outcome) {
	var apiErr *apiError
	switch resp := out.resp; {
	case errors.As(out.err, &apiErr):
		writeErrors(w, apiErr.status, apiErr.texts(out.login)...)
	case out.err != nil:
		writeErrors(w, http.StatusInternalServerError, out.err.Error())
	case resp == nil && (op == opRead || op == opList):
		writeErrors(w, http.StatusNotFound)
	case resp == nil:
		w.WriteHeader(http.StatusNoContent)
	case resp.raw == noBody:
		w.WriteHeader(resp.status)
	case isRaw(resp):
		body := resp.raw.(rawBody)
		w.Header().Set("Content-Type", body.contentType)
		_, _ = w.Write(body.data)
	default:
		status := resp.status
		if status == 0 {
			status = http.StatusOK
		}
		writeJSON(w, status, resp.body())
	}
}

func isRaw(resp *response) bool { _, ok := resp.raw.(rawBody); return ok }

// recorder tells of the status before the client can see it.
type recorder struct {
	http.ResponseWriter
	tell func(status int)
}

func (r recorder) WriteHeader(status int) {
	r.tell(status)
	r.ResponseWriter.WriteHeader(status)
}

// discarded is where an answer goes that the client shall not see.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d discarded) WriteHeader(int)             {}

// secretIDAccessor names the SecretID of a login, live or spent, by its accessor.
func (c *core) secretIDAccessor(path string, body []byte) string {
	if !strings.HasPrefix(path, "/v1/auth/") || !strings.HasSuffix(path, "/login") || !bytes.Contains(body, []byte("secret_id")) {
		return ""
	}
	data, err := parseBody(body)
	if err != nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[data.str("secret_id")]
}

// write sends the fault's status.
func (f Fault) write(w http.ResponseWriter) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}
	if f.Body == "" {
		writeErrors(w, f.Status, http.StatusText(f.Status))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.Status)
	_, _ = io.WriteString(w, f.Body)
}
