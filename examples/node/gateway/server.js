// The gateway, as it was before Phoenix: plain HTTP on both sides. It knows who is
// logged in, and tells the services in two headers on whose behalf it calls.
'use strict'
const http = require('node:http')

const { PORT = '3100', HR_URL = 'http://mcp-hr:3101', FINANCE_URL = 'http://mcp-finance:3102' } = process.env
const sessions = { // a real one asks Keycloak
  'Bearer ada': { id: 'ada', roles: ['hr-read', 'hr-write'] },
  'Bearer tom': { id: 'tom', roles: ['hr-read'] },
}
const keep = new http.Agent({ keepAlive: true, maxSockets: 64 })

function call (user, method, url, body) {
  return new Promise((resolve, reject) => {
    const headers = { 'X-User-Id': user.id, 'X-User-Roles': user.roles.join(',') }
    const data = body && JSON.stringify(body)
    if (data) Object.assign(headers, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(data) })
    const req = http.request(url, { method, headers, agent: keep }, async (res) => {
      try { resolve({ status: res.statusCode, body: await read(res) }) } catch (err) { reject(err) }
    })
    req.on('error', reject)
    req.end(data)
  })
}

async function read (stream) {
  let text = ''
  for await (const chunk of stream.setEncoding('utf8')) text += chunk
  try { return JSON.parse(text) } catch { return { error: text.trim() } }
}

const routes = {
  'GET /health': async () => [200, { ok: true }],
  'GET /me': async (req, user) => { // what the services are told
    const [hr, finance] = await Promise.all([call(user, 'GET', HR_URL + '/whoami'), call(user, 'GET', FINANCE_URL + '/whoami')])
    return [200, { hr: hr.body, finance: finance.body }]
  },
  'POST /hires': async (req, user) => {
    const { name } = await read(req)
    const hired = await call(user, 'POST', HR_URL + '/employees', { name })
    if (hired.status !== 201) return [hired.status, hired.body]
    const pay = await call(user, 'GET', FINANCE_URL + '/salary?grade=' + hired.body.grade)
    return pay.status === 200 ? [201, { ...hired.body, salary: pay.body.salary }] : [pay.status, pay.body]
  },
}

const server = http.createServer(async (req, res) => {
  let status = 404
  let body = { error: 'there is nothing here' }
  try {
    const route = routes[req.method + ' ' + req.url]
    const user = sessions[req.headers.authorization]
    if (route && !user && req.url !== '/health') [status, body] = [401, { error: 'log in first' }]
    else if (route) [status, body] = await route(req, user)
  } catch (err) {
    [status, body] = [502, { error: err.message }]
  }
  res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body) + '\n')
})
server.listen(Number(PORT), '127.0.0.1')
process.on('SIGTERM', () => server.close(() => process.exit(0)))
