// A service that knows nothing of Vault. One secret comes in a variable, and one
// in a file that it reads again at SIGHUP. It prints neither.
'use strict'
const { createHash } = require('node:crypto')
const fs = require('node:fs')
const http = require('node:http')

const port = Number(process.env.PORT || 3000)
const key = process.env.API_KEY
const file = process.env.PASSWORD_FILE || '/run/phoenix/password'
if (!key) {
  console.error('server: API_KEY is needed; start it behind phoenix-agent')
  process.exit(1)
}

// What may be shown of a secret: enough to tell two versions apart.
const digest = (secret) => createHash('sha256').update(secret).digest('hex').slice(0, 12)

const read = () => fs.readFileSync(file, 'utf8').trimEnd()
let password = read()
process.on('SIGHUP', () => {
  password = read()
  console.log(`reloaded: password ${digest(password)}`)
})

const server = http.createServer((req, res) => {
  if (req.url === '/health') {
    res.end('ok\n')
  } else if (req.url === '/') {
    res.end(`key ${digest(key)}, password ${digest(password)}\n`)
  } else {
    res.writeHead(404).end()
  }
})
server.listen(port, '127.0.0.1', () => console.log(`up: key ${digest(key)}, password ${digest(password)}`))

// Answer what has been asked, then end.
process.on('SIGTERM', () => server.close(() => {
  console.log('down')
  process.exit(0)
}))
