// Package mongoconn keeps clients of MongoDB whose credentials are leased,
// change every few hours, and take no operation with them when they do.
//
// [Open] returns a [DB], which lends out the driver's client:
//
//	db, err := mongoconn.Open(ctx, mongoconn.Config{
//		Addr:     "mongodb:27017",
//		Leases:   session.Leases("mongodb/creds/mcp-hr"),
//		Identity: session.Identity(),
//	})
//	defer db.Close(ctx)
//	err = db.Use(ctx, func(ctx context.Context, client *mongo.Client) error {
//		_, err := client.Database("tamshai").Collection("notes").InsertOne(ctx, note)
//		return err
//	})
//
// Which function to use:
//
//   - for dynamic credentials of Vault, take the session's LeaseSource; for a
//     password in a KV secret, secrets.LeasesFromKV;
//   - for a connection string that somebody else wrote, [ParseURI].
//
// # What a connection is
//
// TLS 1.3, verified in full: the chain and the server's name, which is the one in
// [Config.Addr]. There is no other mode and no fallback, and nobody else is
// called: a server that names members of its replica set which are not in Addr
// is not followed there. Each connection shows the certificate that
// [Config.Identity] has at that moment. Passwords go by SCRAM-SHA-256 alone, so
// that no server learns them; MongoDB cannot bind them to the TLS channel. The
// driver's variables of the environment (MONGODB_LOG_ALL and its like, which
// would write documents to standard error or a file) do not count.
//
// # Rotation
//
// The driver keeps a client's password for good, so that a new one needs a new
// client. When the source publishes a new lease, DB logs in with it, asks
// [Config.Admit], opens as many connections as the old client has, and only then
// lends the new client out. The old one drains: when the last function that was
// given it returns, it is disconnected and the old lease is released, which lets
// the source revoke it. What is still busy after [Config.DrainTimeout] is cut
// off: its context ends, and its connections are closed. If any step fails, the
// old lease stays in use; an event and the log say why, and DB tries again. A new
// certificate of the identity is a reason to change clients, too.
//
// # What belongs to one client
//
// Sessions, transactions, cursors, change streams and GridFS streams belong to
// the client that made them. End them before the function returns: nothing that a
// client made works after it has been disconnected. Inside the function they are
// not touched by a rotation until DrainTimeout has passed since; then they fail,
// the server aborts an open transaction, and a change stream is taken up with its
// resume token in the next call of [DB.Use]. The function is never called twice:
// nobody knows what it had done before it failed.
//
// # Errors
//
// What goes wrong with a connection that DB makes by itself is an [*Error], whose
// Kind is one of [ErrConfig], [ErrInsecure], [ErrRefused], [ErrAdmit],
// [ErrUnavailable], [ErrCut] and [ErrClosed], for errors.Is. What an operation ran
// into is the driver's own error, as the function returned it.
//
//	server stopped        the driver looks for it for Config.ConnectTimeout; operations
//	                      fail with its server selection error after that; no
//	                      restart is needed
//	Vault away            nothing, while the lease lives
//	user dropped early    the function's operation fails; Use has a new lease fetched
//	                      before it returns ErrRefused, and the next call uses that.
//	                      Without a new lease, ErrRefused, at once for some seconds, to
//	                      spare Vault and server
package mongoconn
