// Employees, in PostgreSQL. The pool finds the server as libpq does: by PGHOST,
// PGDATABASE and PGUSER. It used to need PGPASSWORD, too.
'use strict'
const http = require('node:http')
const { Pool } = require('pg')

const pool = new Pool({ max: 8 })
pool.on('error', () => {}) // an idle connection has ended: the pool makes another

async function read (req) {
  let text = ''
  for await (const chunk of req.setEncoding('utf8')) text += chunk
  return JSON.parse(text)
}

const routes = {
  'GET /health': async () => [200, { ok: true }],
  'GET /whoami': async (req, user, roles) => [200, { caller: req.headers['phoenix-peer'], user, roles }],
  'POST /employees': async (req, user, roles) => {
    if (!roles.includes('hr-write')) return [403, { error: user + ' may not hire' }]
    const { name } = await read(req)
    const { rows } = await pool.query('INSERT INTO employees (name, hired_by) VALUES ($1, $2) RETURNING id, name, grade, hired_by', [name, user])
    return [201, rows[0]]
  },
}

const server = http.createServer(async (req, res) => {
  let status = 404
  let body = { error: 'there is nothing here' }
  try {
    const route = routes[req.method + ' ' + req.url]
    const user = req.headers['x-user-id']
    if (route && !user && req.url !== '/health') [status, body] = [401, { error: 'on whose behalf?' }]
    else if (route) [status, body] = await route(req, user, (req.headers['x-user-roles'] || '').split(','))
  } catch (err) {
    console.error('failed:', err.code, err.message)
    ;[status, body] = [500, { error: err.message, code: err.code }]
  }
  res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body) + '\n')
})
server.listen(Number(process.env.PORT || '3101'), '127.0.0.1')
process.on('SIGTERM', () => server.close(() => pool.end().then(() => process.exit(0))))
