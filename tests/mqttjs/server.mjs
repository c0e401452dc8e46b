// The release binary as a process, and a jam database that this process writes with SQLite's own
// command-line shell while the server reads it.

import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, openSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const binary = process.env.JAM_MQTT_BIN || resolve(here, '../../target/release/jam-mqtt')
const anyPort = '127.0.0.1:0'
const startMs = 90_000
const stopMs = 12_000

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

class User {
  constructor (id, token) {
    this.id = id
    this.token = token
    this.inbox = `/${id}/inbox`
  }

  clientId (device = 'phone') { return `${this.id}:${device}` }
  channel (device = 'phone') { return `/${this.id}/devices/${this.clientId(device)}` }
  message (content = 'hello') {
    return JSON.stringify({ from: this.id, timestamp: '2024-05-01T12:00:00Z', content, type: 0 })
  }
}

export class Server {
  constructor () {
    if (!existsSync(binary)) throw new Error(`${binary} is missing: cargo build --release, or set JAM_MQTT_BIN`)
    this.folder = mkdtempSync(join(tmpdir(), 'jam-mqttjs-'))
    this.database = join(this.folder, 'directory.db')
    this.users = 0
    execFileSync(join(here, '../harness/certificate'), [this.folder])
    this.ca = readFileSync(join(this.folder, 'ca.pem'))
    this.sql(`PRAGMA journal_mode=wal;${readFileSync(join(here, '../harness/jam.sql'))}`)
  }

  // `tls`: mqtt, mqtts and wss; without it mqtt and ws.
  async start (tls, mqtt = anyPort, http = anyPort) {
    this.logFile = join(this.folder, 'server.log')
    const log = openSync(this.logFile, 'w')
    const certificate = tls
      ? { JAM_MQTT_TLS__CERT: join(this.folder, 'server.pem'), JAM_MQTT_TLS__KEY: join(this.folder, 'server.key') }
      : {}
    this.process = spawn(binary, [
      'serve', '--data', join(this.folder, 'data'), '--mqtt', mqtt, '--mqtts', tls ? anyPort : '',
      '--http', http, '--admin', '', '--directory', `sqlite:${this.database}`
    ], {
      stdio: ['ignore', log, log],
      env: { PATH: process.env.PATH, HOME: process.env.HOME, JAM_MQTT_LIMITS__FAILED_AUTH: '1000000', JAM_MQTT_LIMITS__PUBLISH_RATE: '0', ...certificate }
    })
    this.ended = new Promise((done) => this.process.once('exit', (code) => done(code)))
    for (const end = Date.now() + startMs; Date.now() < end && this.process.exitCode === null; await sleep(20)) {
      // Logged when all of them listen, the last of them last.
      const said = readFileSync(this.logFile, 'utf8').matchAll(/"serving (\w+)","address":"[^"]*:(\d+)"/g)
      const ports = Object.fromEntries([...said].map(([, name, port]) => [name, Number(port)]))
      this.ports = { tcp: ports.mqtt, tls: ports.mqtts, ws: ports.http, wss: ports.https }
      if (tls ? ports.https : ports.http) return this
    }
    this.process.kill('SIGKILL')
    throw new Error(`the server did not start:\n${readFileSync(this.logFile)}`)
  }

  async stop () {
    await this.end()
    rmSync(this.folder, { recursive: true })
  }

  // To be started again.
  async end () {
    if (this.process.exitCode !== null) throw new Error(`the server ended by itself:\n${readFileSync(this.logFile)}`)
    this.process.kill('SIGTERM')
    const late = setTimeout(() => this.process.kill('SIGKILL'), stopMs)
    const code = await this.ended
    clearTimeout(late)
    if (code !== 0) throw new Error(`exit status ${code}:\n${readFileSync(this.logFile)}`)
  }

  async kill () {
    this.process.kill('SIGKILL')
    await this.ended
  }

  sql (text) {
    return execFileSync('sqlite3', ['-bail', '-cmd', '.timeout 10000', this.database], { input: text, encoding: 'utf8' })
  }

  // A message from user 2 by the command line.
  tell (to, content) {
    const [port, token] = [this.ports.tcp, 'token-of-2']
    execFileSync(binary, ['send', '--server', `127.0.0.1:${port}`, '--user', '2', '--token', token, '--to', to, content])
  }

  user () {
    const id = String(++this.users)
    const user = new User(id, `token-of-${id}`)
    this.sql(`INSERT INTO accounts (user_id, username, user_api_token, inactive) VALUES (${id}, 'user${id}', '${user.token}', 0);`)
    return user
  }

  befriend (a, b) {
    this.sql(`INSERT INTO user_friends VALUES (${a.id}, ${b.id}, 0, 0), (${b.id}, ${a.id}, 0, 0);`)
  }

  friends () {
    const pair = [this.user(), this.user()]
    this.befriend(...pair)
    return pair
  }

  block (who, whom, blocked = 1) {
    this.sql(`BEGIN IMMEDIATE;
      UPDATE user_friends SET blocked = ${blocked} WHERE user_id = ${who.id} AND friend_id = ${whom.id};
      UPDATE user_friends SET been_blocked = ${blocked} WHERE user_id = ${whom.id} AND friend_id = ${who.id};
      COMMIT;`)
  }
}
