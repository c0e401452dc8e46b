// The built binary as a process with all of its addresses, and what a test needs of its API.

import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import mqtt from 'mqtt'

const here = dirname(fileURLToPath(import.meta.url))
const binary = process.env.JAM_MQTT_BIN ? resolve(process.env.JAM_MQTT_BIN) : resolve(here, '../../target/release/jam-mqtt')
const anyPort = '127.0.0.1:0'
const startMs = 60_000

export const token = 'may-everything-1234'
export const readToken = 'may-look-1234567'

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

export class Server {
  /** `environment`: settings beyond the tokens. */
  constructor (environment = {}) {
    this.environment = environment
    this.folder = mkdtempSync(join(tmpdir(), 'jam-browser-'))
    this.logFile = join(this.folder, 'server.log')
    this.admin = anyPort
    this.mqtt = anyPort
    this.http = anyPort
  }

  async start () {
    const log = openSync(this.logFile, 'w')
    this.process = spawn(binary, ['serve', '--data', join(this.folder, 'data'), '--mqtt', this.mqtt, '--http', this.http, '--admin', this.admin], {
      stdio: ['ignore', log, log],
      env: { PATH: process.env.PATH, HOME: process.env.HOME, JAM_MQTT_ADMIN__TOKEN: token, JAM_MQTT_ADMIN__READ_TOKEN: readToken, JAM_MQTT_LIMITS__PUBLISH_RATE: '0', ...this.environment }
    })
    this.ended = new Promise((done) => this.process.once('exit', (code) => done(code)))
    for (const end = Date.now() + startMs; Date.now() < end && this.process.exitCode === null; await sleep(20)) {
      const said = readFileSync(this.logFile, 'utf8').matchAll(/"serving (\w+)","address":"([^"]*:\d+)"/g)
      const addresses = Object.fromEntries([...said].map(([, name, address]) => [name, address]))
      if (addresses.admin && addresses.mqtt && addresses.http) {
        this.admin = addresses.admin
        this.mqtt = addresses.mqtt
        this.http = addresses.http
        return this
      }
    }
    this.process.kill('SIGKILL')
    throw new Error(`the server did not start:\n${readFileSync(this.logFile)}`)
  }

  async end (signal = 'SIGTERM') {
    this.process.kill(signal)
    await this.ended
  }

  async stop () {
    await this.end()
    rmSync(this.folder, { recursive: true })
  }

  get console () { return `http://${this.admin}/console/` }

  get chat () { return `http://${this.http}/` }

  /** What logs a user in at the chat page by itself. */
  link (id) { return `${this.chat}#user=${encodeURIComponent(id)}&token=token-of-${encodeURIComponent(id)}` }

  async api (method, path, body) {
    const response = await fetch(`http://${this.admin}/api/v1/${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
      body: body && JSON.stringify(body)
    })
    const answer = await response.json()
    if (!response.ok) throw new Error(`${method} ${path}: ${answer.detail}`)
    return answer
  }

  async user (id, name) {
    await this.api('PUT', `users/${encodeURIComponent(id)}`, { name, token: `token-of-${id}` })
  }

  /** As another program may do it, that keeps the accounts. */
  rename (id, name) {
    execFileSync('sqlite3', ['-bail', join(this.folder, 'data', 'jam.db')], { input: `UPDATE accounts SET username = CAST(x'${Buffer.from(name).toString('hex')}' AS TEXT) WHERE user_id = ${id};` })
  }

  /** A client that is logged in, subscribed to its inbox if `listens`. */
  async client (id, { device = 'phone', listens = true } = {}) {
    const client = await mqtt.connectAsync(`mqtt://${this.mqtt}`, {
      protocolVersion: 5, clientId: `${id}:${device}`, username: id, password: `token-of-${id}`, reconnectPeriod: 0, clean: false,
      properties: { sessionExpiryInterval: 3600 }
    })
    client.on('error', () => {})
    if (listens) await client.subscribeAsync(`/${id}/inbox`, { qos: 1 })
    return client
  }

  async write (client, from, to, content, more = {}) {
    await client.publishAsync(`/${to}/inbox`, JSON.stringify({ from, timestamp: new Date().toISOString(), content, type: 0, ...more }), { qos: 1 })
  }
}
