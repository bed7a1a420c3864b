// Salaries by grade: a service with no database.
'use strict'
const http = require('node:http')

const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://mcp-finance')
  const user = req.headers['x-user-id']
  const roles = (req.headers['x-user-roles'] || '').split(',')
  let status = 404
  let body = { error: 'there is nothing here' }
  if (url.pathname === '/health') [status, body] = [200, { ok: true }]
  else if (!user) [status, body] = [401, { error: 'on whose behalf?' }]
  else if (url.pathname === '/whoami') [status, body] = [200, { caller: req.headers['phoenix-peer'], user, roles }]
  else if (url.pathname === '/salary') [status, body] = [200, { salary: 30000 + 4000 * Number(url.searchParams.get('grade')) }]
  res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body) + '\n')
})
server.listen(Number(process.env.PORT || '3102'), '127.0.0.1')
process.on('SIGTERM', () => server.close(() => process.exit(0)))
